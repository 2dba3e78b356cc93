// What the page needs to unpack the rest of itself: characters to bytes (the writer is base91.py), bytes to text, and text to a script.
const packed = (() => {
  const base = 91;
  const bitsOfTwo = 13;

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
  async function bytes(id) {
    const { textContent, dataset, type } = document.getElementById(id);
    const held = decode(textContent, Number(dataset.bytes));
    if (type === "application/x-lzma") return unpackLzma(held, Number(dataset.size));
    if (type === "application/octet-stream") return held;
    const stream = new Blob([held]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  const text = async (id) => new TextDecoder().decode(await bytes(id));

  async function run(id) {
    const script = document.createElement("script");
    script.textContent = await text(id);
    document.head.append(script);
  }

  return { bytes, text, run };
})();

function showTrouble(error) {
  document.getElementById("trouble").hidden = false;
  throw error;
}

// A page that opens at its top shows its text before the rest is unpacked, in the first frame or, where nobody sees it yet, soon. One that
// opens further down, by its address or by going back, must have its full height first.
function textShown() {
  const [{ type }] = performance.getEntriesByType("navigation");
  if (location.hash || type !== "navigate") return Promise.resolve();
  return new Promise((done) => {
    requestAnimationFrame(() => setTimeout(done));
    setTimeout(done, 500);
  });
}

textShown().then(() => packed.run("program")).catch(showTrouble);
