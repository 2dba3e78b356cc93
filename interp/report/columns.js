// Reads matrices and planes of words: the mirror of rangecoder.py and predict.py, where the reasons stand.
class Decisions {
  static rates = Array.from({ length: 121 }, (_, count) => 1 / (count + 1.6));

  constructor(bytes) {
    this.input = new RangeDecoder(bytes, -1);
  }

  contexts(count) {
    return { chances: new Float64Array(count).fill(0.5), counts: new Uint8Array(count) };
  }

  // A decision under two contexts, each the place in a table.
  bit(one, atOne, two, atTwo) {
    const { input } = this;
    const { rates } = Decisions;
    const chance = one.chances[atOne];
    const share = Math.min(Math.max(Math.floor((chance + two.chances[atTwo]) * 2048), 1), 4095);
    const value = input.above((input.range >>> 12) * share);
    if (value) {
      one.chances[atOne] = chance - chance * rates[one.counts[atOne]];
      two.chances[atTwo] -= two.chances[atTwo] * rates[two.counts[atTwo]];
    } else {
      one.chances[atOne] = chance + (1 - chance) * rates[one.counts[atOne]];
      two.chances[atTwo] += (1 - two.chances[atTwo]) * rates[two.counts[atTwo]];
    }
    if (one.counts[atOne] < 120) one.counts[atOne]++;
    if (two.counts[atTwo] < 120) two.counts[atTwo]++;
    return value ? 1 : 0;
  }

  plain(bits) {
    return this.input.number(bits);
  }
}

const columns = (() => {
  const unit = 4096;
  const nodes = 96;

  // Where steps lie, given the numbers that they stand for.
  function scaleOf(sizes) {
    if (sizes.length <= 400) return sizes.map((_, index) => 16 * index);
    const places = [0];
    let place = 0;
    for (let index = 1; index < sizes.length; index++) {
      place += (unit * (sizes[index] - sizes[index - 1])) / (sizes[index - 1] + 30);
      places.push(Math.floor(place + 0.5));
    }
    return places;
  }

  function stepAt(told, places) {
    const wanted = Math.abs(told);
    let low = 0;
    let high = places.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (places[middle] <= wanted) low = middle;
      else high = middle;
    }
    return told < 0 ? -low : low;
  }

  function solved(squares, products) {
    const count = products.length;
    const rows = squares.map((row, index) => [...row, products[index]]);
    for (let i = 0; i < count; i++) rows[i][i] += rows[i][i] / 1024 + 1000;
    for (let i = 0; i < count; i++) {
      for (let j = i + 1; j < count; j++) {
        const factor = rows[j][i] / rows[i][i];
        for (let k = i; k <= count; k++) rows[j][k] -= factor * rows[i][k];
      }
    }
    const weights = new Array(count).fill(0);
    for (let i = count - 1; i >= 0; i--) {
      let rest = rows[i][count];
      for (let k = i + 1; k < count; k++) rest -= rows[i][k] * weights[k];
      weights[i] = rest / rows[i][i];
    }
    return weights;
  }

  function foreteller(count) {
    const squares = Array.from({ length: count }, () => new Array(count).fill(0));
    const products = new Array(count).fill(0);
    const learnt = { weights: products.map((_, index) => (index === 2 ? 1 : 0)) };
    // Whole numbers, so that the order of the sums does not matter.
    learnt.learn = (features, row) => {
      for (let i = 0; i < count; i++) {
        for (let j = 0; j < count; j++) squares[i][j] = squares[i][j] * 0.75 + features.reduce((sum, one) => sum + one[i] * one[j], 0);
        products[i] = products[i] * 0.75 + features.reduce((sum, one, pos) => sum + one[i] * row[pos], 0);
      }
      learnt.weights = solved(squares, products);
    };
    return learnt;
  }

  // How far off a number was, in steps.
  function readError(decisions, about, look, tables) {
    const bits = 32 - Math.clz32(about);
    const one = nodes * Math.min(4 * bits + (Math.floor((about * 4) / 2 ** (bits - 1)) & 3), 127);
    const two = nodes * look;
    const ask = (node) => decisions.bit(tables.near, one + node, tables.told, two + node);
    let length = Math.min(Math.max(bits - 4, 0), 17);
    if (ask(length)) {
      do length++; while (ask(24 + length));
    } else {
      while (length > 0 && ask(48 + length)) length--;
    }
    if (!length) return 0;
    const sign = ask(72 + length) ? -1 : 1;
    let size = 1;
    let node = 1;
    for (let depth = 0; depth < Math.min(length - 1, 2); depth++) {
      const bit = decisions.bit(tables.fine, 4 * length + node, tables.fine, 4 * length + node);
      size = 2 * size + bit;
      node = 2 * node + bit;
    }
    const left = Math.max(length - 3, 0);
    return sign * (left ? size * 2 ** left + decisions.plain(left) : size);
  }

  // The steps of a matrix (null for a hole), and where its cells lie.
  function readMatrix(decisions, [height, width], holes, sizes, peers) {
    const places = scaleOf(sizes);
    const furthest = places[places.length - 1];
    const tables = { near: decisions.contexts(nodes * 128), told: decisions.contexts(nodes * 128), fine: decisions.contexts(128), gaps: decisions.contexts(4) };
    const learnt = foreteller(5 + 2 * peers.length);
    const lies = [];
    const off = [];
    const steps = [];
    const zeros = new Array(width).fill(0);
    for (let row = 0; row < height; row++) {
      const up = row ? lies[row - 1] : zeros;
      const above = row > 1 ? lies[row - 2] : up;
      const offUp = row ? off[row - 1] : zeros;
      const line = (lies[row] = []);
      const offLine = (off[row] = []);
      const stepLine = (steps[row] = []);
      const features = [];
      let sum = 0;
      for (let pos = 0; pos < width; pos++) {
        const feature = [unit, up[pos], pos ? line[pos - 1] : up[0], pos ? up[pos - 1] : up[0], above[pos]];
        for (const peer of peers) feature.push(peer[row][pos], row ? peer[row - 1][pos] : 0);
        features.push(feature);
        let told = 0;
        for (let index = 0; index < feature.length; index++) told += learnt.weights[index] * feature[index];
        told = Math.min(Math.max(Math.floor(told + 0.5), -furthest), furthest);
        const before = pos ? offLine[pos - 1] : offUp[0];
        const second = pos > 1 ? offLine[pos - 2] : offUp[0];
        const mean = pos ? Math.floor(sum / pos) : offUp[0];
        const expected = before + second + 2 * offUp[pos] + 2 * mean + 6;
        const reach = Math.max(stepAt(Math.min(told + 64, furthest), places) - stepAt(Math.max(told - 64, -furthest), places), 1);
        const about = Math.min(Math.floor((expected * reach) / 96) + 1, 2 ** 31 - 1);
        const look = Math.min(Math.max(Math.floor(told / 512) + 64, 0), 127);
        const gap = (row && steps[row - 1][pos] === null ? 2 : 0) + (pos && stepLine[pos - 1] === null ? 1 : 0);
        const hole = holes && decisions.bit(tables.gaps, gap, tables.gaps, gap);
        const step = hole ? 0 : stepAt(told, places) + readError(decisions, about, look, tables);
        stepLine.push(hole ? null : step);
        line.push(step < 0 ? -places[-step] : places[step]);
        offLine.push(Math.abs(line[pos] - told));
        sum += offLine[pos];
      }
      learnt.learn(features, line);
    }
    return { steps, lies };
  }

  // The planes of a group, each rows of numbers of words; words are numbered as they are met.
  function readWords(decisions, [height, width, count], depth, met) {
    const flags = decisions.contexts((3 * count + 1) * count);
    const seen = decisions.contexts(2 ** (depth + 1));
    const fresh = decisions.contexts(1);
    const tree = decisions.contexts(2 ** depth);
    const rows = [];
    for (let row = 0; row < height; row++) {
      const own = decisions.contexts(2 ** depth);
      const line = (rows[row] = []);
      for (let pos = 0; pos < width; pos++) {
        const up = row ? rows[row - 1][pos] : [];
        const near = [up, pos ? line[pos - 1] : [], pos > 1 ? line[pos - 2] : []];
        const cell = [];
        for (let plane = 0; plane < count; plane++) {
          const tried = new Set(cell);
          const found = (one, source) => {
            if (one === undefined || tried.has(one)) return false;
            tried.add(one);
            return decisions.bit(flags, source * count + plane, seen, 2 * one + (source > 0 ? 1 : 0)) === 1;
          };
          const named = () => {
            if (decisions.bit(fresh, 0, fresh, 0)) return met.count++;
            let node = 1;
            for (let place = 0; place < depth; place++) node = 2 * node + decisions.bit(tree, node, own, node);
            return node - 2 ** depth;
          };
          let word = found(up[plane], 0) ? up[plane] : undefined;
          near.forEach((words, which) => words.forEach((one, index) => {
            if (word === undefined && found(one, 1 + which * count + index)) word = one;
          }));
          cell.push(word === undefined ? named() : word);
        }
        line.push(cell);
      }
    }
    return Array.from({ length: count }, (_, plane) => rows.map((line) => Uint32Array.from(line, (cell) => cell[plane])));
  }

  return { readMatrix, readWords };
})();
