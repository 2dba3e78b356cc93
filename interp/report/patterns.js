// The attention patterns of all heads, from the bytes of pack_mosaic in render.py, as numbers and as small images.
const headPatterns = (spec) => {
  // How many rows and columns a pattern has; each stands for so many tokens.
  const count = Math.ceil(selection.count(spec.prompt) / spec.step);
  const pairs = (count * (count + 1)) / 2;
  const all = spec.layers.flatMap((layer, row) => spec.heads.map((head, column) => ({ layer, head, row, column })));
  // The stops of the figure's own scale: a part from 0 to 1, and red, green and blue.
  const stops = spec.detail.data[0].colorscale.map(([part, color]) => [part, [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16))]);
  const shades = Array.from({ length: 256 }, (_, shade) => colorOf(shade / 255));
  const tiles = new Map();
  let bytes = null;

  const indexOf = ({ row, column }) => row * spec.heads.length + column;

  function colorOf(part) {
    const high = Math.max(1, stops.findIndex(([end]) => end >= part));
    const [[from, low], [to, up]] = [stops[high - 1], stops[high]];
    return low.map((value, index) => value + ((part - from) / (to - from)) * (up[index] - value));
  }

  // What the weights on each key are multiplied by: 1, or the norm of what would be written from it.
  function factorsOf(one, weighted) {
    if (!weighted) return new Float64Array(count).fill(1 / 255);
    const start = all.length * pairs + indexOf(one) * count;
    const greatest = pageData.matrix(spec.norms)[one.row][one.column] / 255;
    return Float64Array.from({ length: count }, (_, key) => (bytes[start + key] * greatest) / 255);
  }

  // Rows of queries; null where a key comes after the query.
  function pattern(one, weighted) {
    const rows = Array.from({ length: count }, () => new Array(count).fill(null));
    const factors = factorsOf(one, weighted);
    let at = indexOf(one) * pairs;
    for (let key = 0; key < count; key++) {
      for (let query = key; query < count; query++) rows[query][key] = bytes[at++] * factors[key];
    }
    return rows;
  }

  // The greatest weight in each area of a head's pattern, key by key as they are packed.
  function greatestOf(one, cells, weighted) {
    const most = new Float32Array(cells * cells);
    const factors = factorsOf(one, weighted);
    const cellOf = Uint16Array.from({ length: count }, (_, place) => Math.floor((place * cells) / count));
    let at = indexOf(one) * pairs;
    for (let key = 0; key < count; key++) {
      const factor = factors[key];
      for (let query = key; query < count; query++) {
        const weight = bytes[at++] * factor;
        const cell = cellOf[query] * cells + cellOf[key];
        if (weight > most[cell]) most[cell] = weight;
      }
    }
    return most;
  }

  // One head as an image: from 0 to 1, or to the head's own greatest where weighted.
  function paint(one, side, weighted, pen) {
    const cells = Math.min(count, side);
    const most = greatestOf(one, cells, weighted);
    const top = weighted ? most.reduce((high, value) => Math.max(high, value), 0) || 1 : 1;
    const image = pen.createImageData(side, side);
    for (let y = 0; y < side; y++) {
      const query = Math.floor((y * cells) / side);
      for (let x = 0; x < side; x++) {
        const key = Math.floor((x * cells) / side);
        if (key > query) continue;
        const [red, green, blue] = shades[Math.min(Math.round((255 * most[query * cells + key]) / top), 255)];
        const at = 4 * (y * side + x);
        image.data[at] = red;
        image.data[at + 1] = green;
        image.data[at + 2] = blue;
        image.data[at + 3] = 255;
      }
    }
    return image;
  }

  function tile(one, side, weighted, pen) {
    const name = `${indexOf(one)} ${side} ${weighted}`;
    if (!tiles.has(name)) tiles.set(name, paint(one, side, weighted, pen));
    return tiles.get(name);
  }

  const read = async () => { bytes = bytes || (await pageData.bytes(`blob${spec.blob}`)); };

  return { all, count, indexOf, pattern, tile, read };
};
