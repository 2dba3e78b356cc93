"use strict";
// A range decoder, and on it LZMA as files ending in .lzma hold it (the specification is public) for texts; columns.js reads arrays.
// Browsers inflate by themselves, but that makes a page a sixth larger.
class RangeDecoder {
  constructor(bytes, at) {
    this.bytes = bytes;
    this.at = at + 5;
    // The range and the code: an array keeps them from becoming objects at each step.
    this.now = new Uint32Array([2 ** 32 - 1, 0]);
    for (let place = at + 1; place < at + 5; place++) this.now[1] = this.now[1] * 256 + bytes[place];
  }

  // One bit. Of 2 ** bits equal parts of the range, 0 has ``share``.
  decide(share, bits) {
    const { now } = this;
    const bound = (now[0] >>> bits) * share;
    if (now[1] < bound) {
      now[0] = bound;
      if (bound < 2 ** 24) this.fill();
      return 0;
    }
    now[1] -= bound;
    now[0] -= bound;
    if (now[0] < 2 ** 24) this.fill();
    return 1;
  }

  // A number of some bits, every value as likely as every other.
  number(bits) {
    const { now } = this;
    const part = now[0] >>> bits;
    const value = Math.floor(now[1] / part);
    now[1] -= value * part;
    now[0] = part;
    this.fill();
    return value;
  }

  fill() {
    const { now, bytes } = this;
    while (now[0] < 2 ** 24) {
      now[0] *= 256;
      now[1] = now[1] * 256 + bytes[this.at++];
    }
  }
}

function unpackLzma(bytes, size) {
  const input = new RangeDecoder(bytes, 13);
  const output = new Uint8Array(size);
  const literalContext = bytes[0] % 9;
  const literalPlace = Math.floor(bytes[0] / 9) % 5;
  const placeMask = (1 << Math.floor(bytes[0] / 45)) - 1;
  const chances = (count) => new Uint16Array(count).fill(1024);

  // Goes down a tree of chances from a node, one bit a step, until its number is no less than ``end``. It is ``decide`` in local variables
  // of 32 bits, with which browsers are quick: most of the time that a page takes to open is spent here.
  const { now } = input;
  function walk(table, start, node, end) {
    let range = now[0];
    let code = now[1];
    let at = input.at;
    while (node < end) {
      const chance = table[start + node];
      const bound = Math.imul(range >>> 11, chance) >>> 0;
      if (code < bound) {
        range = bound;
        table[start + node] = chance + ((2048 - chance) >> 5);
        node <<= 1;
      } else {
        range = (range - bound) >>> 0;
        code = (code - bound) >>> 0;
        table[start + node] = chance - (chance >> 5);
        node = (node << 1) | 1;
      }
      if (range < 2 ** 24) {
        range = (range << 8) >>> 0;
        code = ((code << 8) | bytes[at++]) >>> 0;
      }
    }
    now[0] = range;
    now[1] = code;
    input.at = at;
    return node;
  }

  const bit = (table, index) => walk(table, index - 1, 1, 2) - 2;
  const tree = (table, start, bits) => walk(table, start, 1, 1 << bits) - (1 << bits);

  function reversed(table, start, bits) {
    let node = 1;
    let value = 0;
    for (let place = 0; place < bits; place++) {
      const one = bit(table, start + node);
      node = 2 * node + one;
      value |= one << place;
    }
    return value;
  }

  const lengths = () => ({ choice: chances(2), low: chances(128), middle: chances(128), high: chances(256) });

  function length({ choice, low, middle, high }, place) {
    if (!bit(choice, 0)) return tree(low, place << 3, 3);
    if (!bit(choice, 1)) return 8 + tree(middle, place << 3, 3);
    return 16 + tree(high, 0, 8);
  }

  const literals = chances(0x300 << (literalContext + literalPlace));
  const matched = chances(192);
  const repeated = chances(12);
  const second = chances(12);
  const third = chances(12);
  const fourth = chances(12);
  const single = chances(192);
  const slots = chances(256);
  const near = chances(128);
  const aligned = chances(16);
  const ofMatch = lengths();
  const ofRepeat = lengths();
  let last = [0, 0, 0, 0];
  let state = 0;
  let at = 0;

  function literal() {
    const place = (at & ((1 << literalPlace) - 1)) << literalContext;
    const start = 0x300 * (place + ((at ? output[at - 1] : 0) >> (8 - literalContext)));
    let node = 1;
    if (state > 6) {
      let known = output[at - last[0] - 1];
      for (let same = true; same && node < 256; ) {
        const expected = known >> 7;
        known = (known << 1) & 255;
        const one = bit(literals, start + ((1 + expected) << 8) + node);
        node = 2 * node + one;
        same = one === expected;
      }
    }
    node = walk(literals, start, node, 256);
    output[at++] = node;
    state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
  }

  function distance(length) {
    const slot = tree(slots, Math.min(length, 3) << 6, 6);
    if (slot < 4) return slot;
    const direct = (slot >> 1) - 1;
    const high = (2 | (slot & 1)) * 2 ** direct;
    if (slot < 14) return high + reversed(near, high - slot, direct);
    let middle = 0;
    for (let place = 4; place < direct; place++) middle = 2 * middle + input.number(1);
    return high + 16 * middle + reversed(aligned, 0, 4);
  }

  // A distance that was used before moves to the front.
  function again() {
    const which = !bit(second, state) ? 0 : !bit(third, state) ? 1 : 2 + bit(fourth, state);
    const [chosen] = last.splice(which, 1);
    last.unshift(chosen);
    return which;
  }

  while (at < size) {
    const place = at & placeMask;
    if (!bit(matched, (state << 4) + place)) {
      literal();
      continue;
    }
    let count = 1;
    if (!bit(repeated, state)) {
      count = 2 + length(ofMatch, place);
      last = [distance(count - 2), last[0], last[1], last[2]];
      state = state < 7 ? 7 : 10;
    } else if (again() === 0 && !bit(single, (state << 4) + place)) {
      state = state < 7 ? 9 : 11;
    } else {
      count = 2 + length(ofRepeat, place);
      state = state < 7 ? 8 : 11;
    }
    for (const end = Math.min(at + count, size); at < end; at++) output[at] = output[at - last[0] - 1];
  }
  return output;
}
