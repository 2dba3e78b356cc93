// What the page's script reads: compressed elements, and in them JSON and arrays. The writers are base91.py, arrays.py and pack.py.
const pageData = (() => {
  const base = 91;
  const bitsOfTwo = 13;
  let description = { matrices: [], planes: [], words: [] };
  let matrices = [];
  let planes = [];
  const computed = new Map();

  // The printable characters without < > and &, numbered.
  function characterValues() {
    const values = new Uint8Array(127);
    let next = 0;
    for (let code = 33; code < 127; code++) if (!"<>&".includes(String.fromCharCode(code))) values[code] = next++;
    return values;
  }

  function decode(text, length) {
    const value = characterValues();
    const bytes = new Uint8Array(length);
    let held = 0;
    let bits = 0;
    let at = 0;
    for (let index = 0; at < length; index += 2) {
      held = (held << bitsOfTwo) | (value[text.charCodeAt(index)] * base + value[text.charCodeAt(index + 1)]);
      for (bits += bitsOfTwo; bits > 7 && at < length; bytes[at++] = held >> bits) bits -= 8;
      held &= (1 << bits) - 1;
    }
    return bytes;
  }

  // The bytes of an element, unpacked as its type says.
  async function unpack(id) {
    const { textContent, dataset, type } = document.getElementById(id);
    const bytes = decode(textContent, Number(dataset.bytes));
    if (type === "application/x-lzma") return unpackLzma(bytes, Number(dataset.size));
    if (type === "application/octet-stream") return bytes;
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // The numbers that steps 0 to top stand for: see arrays.py.
  function sizesOf({ exact, top }) {
    if (exact) return Array.from({ length: top + 1 }, (_, step) => step);
    const sizes = Array.from({ length: 1000 }, (_, step) => step);
    while (sizes.length <= top) sizes.push(...sizes.slice(-900).map((size) => 10 * size));
    return sizes.slice(0, top + 1);
  }

  function numbersOf(steps, sizes, exponent) {
    // Dividing by a power of ten rounds once: 123 / 1000 is 0.123, 123 * 0.001 is not.
    const value = (size) => (exponent < 0 ? size / 10 ** -exponent : size * 10 ** exponent);
    return steps.map((row) => row.map((step) => (step === null ? null : step < 0 ? -value(sizes[-step]) : value(sizes[step]))));
  }

  function readArrays(bytes) {
    const decisions = new Decisions(bytes);
    const read = [];
    matrices = description.matrices.map((unit) => {
      const sizes = sizesOf(unit);
      const same = read.filter(({ shape }) => shape.join() === unit.shape.join()).slice(-2);
      const { steps, lies } = columns.readMatrix(decisions, unit.shape, unit.holes, sizes, same.map((one) => one.lies));
      read.push({ shape: unit.shape, lies });
      return numbersOf(steps, sizes, unit.exponent);
    });
    const met = { count: 0 };
    const depth = 32 - Math.clz32(description.words.length);
    planes = description.planes.flatMap((shape) => columns.readWords(decisions, shape, depth, met));
  }

  const functions = {
    // As many digits as three of the logarithm give.
    exp: (value) => Number(Math.exp(value).toPrecision(value < -1 ? 2 : 3)),
    log: Math.log,
    "1 + value": (value) => 1 + value,
    "log10(value)": Math.log10,
    "log10(1 + value)": (value) => Math.log10(1 + value),
  };

  // The rows of a matrix, or of a function of it.
  function matrix({ matrix: number, by }) {
    if (!by) return matrices[number];
    const name = `${number} ${by}`;
    const value = (one) => (one === null || !Number.isFinite(functions[by](one)) ? null : functions[by](one));
    if (!computed.has(name)) computed.set(name, matrices[number].map((row) => row.map(value)));
    return computed.get(name);
  }

  const word = (plane, row, column) => description.words[planes[plane][row][column]];

  const text = (bytes) => new TextDecoder().decode(bytes);

  async function read() {
    const data = JSON.parse(text(await unpack("data")));
    description = data.arrays;
    readArrays(await unpack("arrays"));
    return data;
  }

  return { read, matrix, word, bytes: unpack, code: async (id) => text(await unpack(id)) };
})();
