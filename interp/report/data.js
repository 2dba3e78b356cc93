// What the page's script reads: JSON, and arrays by reference. The writers are arrays.py and pack.py.
const pageData = (() => {
  let description = { matrices: [], planes: [] };
  let words = [];
  let matrices = [];
  let planes = [];
  const computed = new Map();

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

  // For each token the place where it stood last before, -1 for none, in the first prompt with as many tokens as there are columns.
  function twinsOf(prompts, width) {
    const { ids } = Object.values(prompts).find((prompt) => prompt.ids.length === width) || { ids: new Array(width) };
    const last = new Map();
    return ids[0] === undefined ? new Array(width).fill(-1) : ids.map((id, place) => {
      const before = last.has(id) ? last.get(id) : -1;
      last.set(id, place);
      return before;
    });
  }

  function readArrays(bytes, prompts) {
    const decisions = new Decisions(bytes);
    const read = [];
    matrices = description.matrices.map((unit) => {
      const sizes = sizesOf(unit);
      const peers = read.filter(({ shape }) => shape.join() === unit.shape.join()).slice(-4).map((one) => one.lies);
      const { steps, lies } = columns.readMatrix(decisions, unit.shape, unit.holes, sizes, twinsOf(prompts, unit.shape[1]), peers);
      read.push({ shape: unit.shape, lies });
      return numbersOf(steps, sizes, unit.exponent);
    });
    const met = { count: 0 };
    const depth = 32 - Math.clz32(words.length);
    planes = description.planes.flatMap((shape) => columns.readWords(decisions, shape, twinsOf(prompts, shape[1]), depth, met));
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

  const word = (plane, row, column) => words[planes[plane][row][column]];

  async function read() {
    const data = JSON.parse(await packed.text("data"));
    description = data.arrays;
    words = description.words ? description.words.split("\n") : [];
    readArrays(await packed.bytes("arrays"), data.prompts);
    return data;
  }

  return { read, matrix, word, bytes: packed.bytes };
})();
