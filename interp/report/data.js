"use strict";
// What the page's script reads: compressed elements, and in them JSON and arrays. The writers are base91.py, arrays.py and pack.py.
const pageData = (() => {
  const base = 91;
  const bitsOfTwo = 13;
  const zero = 32768;
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

  async function unpack(id) {
    const { textContent, dataset } = document.getElementById(id);
    const stream = new Blob([decode(textContent, Number(dataset.bytes))]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // The number that a code stands for: see arrays.py.
  function numberOf(code, unit) {
    if (code === 0) return null;
    const index = Math.abs(code - zero);
    const decade = index < 1000 ? 0 : Math.floor((index - 1000) / 900) + 1;
    const digits = decade ? 100 + ((index - 1000) % 900) : index;
    // Dividing by a power of ten rounds once: 123 / 1000 is 0.123, 123 * 0.001 is not.
    const size = unit.exponent < 0 ? (digits * 10 ** decade) / 10 ** -unit.exponent : digits * 10 ** (decade + unit.exponent);
    return code < zero ? -size : size;
  }

  function readMatrix(bytes, start, unit) {
    const [height, width] = unit.shape;
    const count = height * width;
    const codes = new Uint16Array(count);
    for (let index = 0; index < count; index++) {
      const folded = (bytes[start + index] << 8) | bytes[start + count + index];
      const before = unit.differences && index >= width ? codes[index - width] : zero;
      codes[index] = before + ((folded >>> 1) ^ -(folded & 1));
    }
    return Array.from({ length: height }, (_, row) => Array.from(codes.subarray(row * width, (row + 1) * width), (code) => numberOf(code, unit)));
  }

  function readArrays(bytes) {
    let at = 0;
    matrices = description.matrices.map((unit) => {
      const start = at;
      at += 2 * unit.shape[0] * unit.shape[1];
      return readMatrix(bytes, start, unit);
    });
    const next = () => {
      let value = 0;
      for (let shift = 0; ; shift += 7) {
        value |= (bytes[at] & 127) << shift;
        if (bytes[at++] < 128) return value;
      }
    };
    planes = description.planes.map(([height, width]) => Array.from({ length: height }, () => Uint32Array.from({ length: width }, next)));
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

  // Reads the page's data: JSON, a zero byte, arrays.
  async function read() {
    const bytes = await unpack("data");
    const end = bytes.indexOf(0);
    const data = JSON.parse(text(bytes.subarray(0, end)));
    description = data.arrays;
    readArrays(bytes.subarray(end + 1));
    return data;
  }

  return { read, matrix, word, bytes: unpack, code: async (id) => text(await unpack(id)) };
})();
