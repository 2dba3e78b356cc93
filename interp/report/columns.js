"use strict";
// Reads matrices and planes of words: the mirror of rangecoder.py and predict.py, where the reasons stand.
const slowest = 60;

class Decisions {
  constructor(bytes) {
    this.rates = Float64Array.from({ length: slowest + 1 }, (_, count) => 1 / (count + 1.6));
    this.input = new RangeDecoder(bytes, -1);
  }

  contexts(count) {
    return { chances: new Float64Array(count).fill(0.5), counts: new Uint8Array(count) };
  }

  // A decision under two contexts, each the place in a table.
  bit(one, atOne, two, atTwo) {
    const { rates } = this;
    const chance = one.chances[atOne];
    const other = two.chances[atTwo];
    const mean = !two.counts[atTwo] ? chance : !one.counts[atOne] ? other : (chance + other) / 2;
    const share = Math.min(Math.max((mean * 4096) | 0, 1), 4095);
    const value = this.input.decide(share, 12);
    if (value) {
      one.chances[atOne] = chance - chance * rates[one.counts[atOne]];
      two.chances[atTwo] -= two.chances[atTwo] * rates[two.counts[atTwo]];
    } else {
      one.chances[atOne] = chance + (1 - chance) * rates[one.counts[atOne]];
      two.chances[atTwo] += (1 - two.chances[atTwo]) * rates[two.counts[atTwo]];
    }
    if (one.counts[atOne] < slowest) one.counts[atOne]++;
    if (two.counts[atTwo] < slowest) two.counts[atTwo]++;
    return value;
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
    learnt.learn = (features, line) => {
      // Whole numbers, so that the order of the sums does not matter.
      const sum = (one, two) => {
        let total = 0;
        for (let pos = 0; pos < line.length; pos++) total += one[pos] * two[pos];
        return total;
      };
      for (let i = 0; i < count; i++) {
        for (let j = i; j < count; j++) squares[i][j] = squares[j][i] = squares[i][j] * 0.75 + sum(features[i], features[j]);
        products[i] = products[i] * 0.75 + sum(features[i], line);
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
  function readMatrix(decisions, [height, width], holes, sizes, twins, peers) {
    const places = scaleOf(sizes);
    const furthest = places[places.length - 1];
    const tables = { near: decisions.contexts(nodes * 128), told: decisions.contexts(nodes * 128), fine: decisions.contexts(128), gaps: decisions.contexts(4) };
    const learnt = foreteller(7 + 2 * peers.length);
    const row = () => new Float64Array(width);
    const zeros = row();
    const lies = [];
    const off = [];
    const steps = [];
    for (let at = 0; at < height; at++) {
      const up = at ? lies[at - 1] : zeros;
      const offUp = at ? off[at - 1] : zeros;
      const [line, offLine, left, corner, twin, overTwin] = [row(), row(), row(), row(), row(), row()];
      const stepLine = new Array(width);
      const features = [row().fill(unit), up, left, corner, at > 1 ? lies[at - 2] : up, twin, overTwin];
      for (const peer of peers) features.push(peer[at], at ? peer[at - 1] : zeros);
      let sum = 0;
      for (let pos = 0; pos < width; pos++) {
        left[pos] = pos ? line[pos - 1] : up[0];
        corner[pos] = pos ? up[pos - 1] : up[0];
        twin[pos] = twins[pos] < 0 ? left[pos] : line[twins[pos]];
        overTwin[pos] = twins[pos] < 0 ? corner[pos] : up[twins[pos]];
        let told = 0;
        for (let index = 0; index < features.length; index++) told += learnt.weights[index] * features[index][pos];
        told = Math.min(Math.max(Math.floor(told + 0.5), -furthest), furthest);
        const before = pos ? offLine[pos - 1] : offUp[0];
        const second = pos > 1 ? offLine[pos - 2] : offUp[0];
        const mean = pos ? Math.floor(sum / pos) : offUp[0];
        const expected = before + second + 2 * offUp[pos] + 2 * mean + 6;
        const reach = stepAt(Math.min(told + 64, furthest), places) - stepAt(Math.max(told - 64, -furthest), places);
        const about = Math.min(Math.floor((expected * Math.max(reach, 1)) / 96) + 1, 2 ** 31 - 1);
        const look = Math.min(Math.max(Math.floor(told / 512) + 64, 0), 127);
        const gap = (at && steps[at - 1][pos] === null ? 2 : 0) + (pos && stepLine[pos - 1] === null ? 1 : 0);
        const hole = holes && decisions.bit(tables.gaps, gap, tables.gaps, gap);
        const step = hole ? 0 : stepAt(told, places) + readError(decisions, about, look, tables);
        stepLine[pos] = hole ? null : step;
        line[pos] = step < 0 ? -places[-step] : places[step];
        offLine[pos] = Math.abs(line[pos] - told);
        sum += offLine[pos];
      }
      lies.push(line);
      off.push(offLine);
      steps.push(stepLine);
      learnt.learn(features, line);
    }
    return { steps, lies };
  }

  // The planes of a group, each rows of numbers of words; words are numbered as they are met.
  function readWords(decisions, [height, width, count], twins, depth, met) {
    const flags = decisions.contexts((3 * count + 2) * count);
    const seen = decisions.contexts(4 * 2 ** depth);
    const fresh = decisions.contexts(1);
    const tree = decisions.contexts(2 ** depth);
    const rows = [];
    let own;

    function named() {
      if (decisions.bit(fresh, 0, fresh, 0)) return met.count++;
      let node = 1;
      for (let place = 0; place < depth; place++) node = 2 * node + decisions.bit(tree, node, own, node);
      return node - 2 ** depth;
    }

    function readCell(up, twin, left) {
      const cell = [];
      for (let plane = 0; plane < count; plane++) {
        const tried = cell.slice();
        const isIt = (one, source, kind) => {
          if (one === undefined || tried.includes(one)) return false;
          tried.push(one);
          return decisions.bit(flags, source * count + plane, seen, 4 * one + kind) === 1;
        };
        const search = () => {
          if (isIt(up[plane], 0, 0)) return up[plane];
          if (isIt(twin[plane], 1, 3)) return twin[plane];
          for (const [kind, words] of [up, twin, left].entries()) {
            for (let index = 0; index < words.length; index++) if (isIt(words[index], 2 + kind * count + index, 1 + kind)) return words[index];
          }
          return named();
        };
        cell.push(search());
      }
      return cell;
    }

    for (let row = 0; row < height; row++) {
      own = decisions.contexts(2 ** depth);
      const line = (rows[row] = []);
      for (let pos = 0; pos < width; pos++) line.push(readCell(row ? rows[row - 1][pos] : [], twins[pos] < 0 ? [] : line[twins[pos]], pos ? line[pos - 1] : []));
    }
    return Array.from({ length: count }, (_, plane) => rows.map((line) => Uint32Array.from(line, (cell) => cell[plane])));
  }

  return { readMatrix, readWords };
})();
