// The keyboard: arrows for tokens, brackets for layers, comma and full stop for heads, a stroke to find a token, a question mark for help.
const keyboard = (() => {
  const { byId } = writing;
  const steps = {
    ArrowLeft: { pos: -1 },
    ArrowRight: { pos: 1 },
    "[": { layer: -1 },
    "]": { layer: 1 },
    ",": { head: -1 },
    ".": { head: 1 },
  };
  // In a picture that has the focus; elsewhere these keys scroll the page.
  const inPictures = { ArrowUp: { layer: 1 }, ArrowDown: { layer: -1 } };

  // With Control, Alt or Command a key is the browser's, unless they are how a keyboard types the character: AltGr, Option.
  function isOfBrowser(event) {
    const { key, metaKey, ctrlKey, altKey } = event;
    const typed = key.length === 1 && (event.getModifierState("AltGraph") || (altKey && !ctrlKey));
    return metaKey || ((ctrlKey || altKey) && !typed);
  }

  // Whether an element needs a key for itself.
  function keeps(node, key) {
    if (node.closest("dialog, textarea, select")) return true;
    if (node.tagName === "INPUT") return node.type !== "range" || key.startsWith("Arrow");
    const box = key.startsWith("Arrow") && node.closest(".scroll");
    return Boolean(box) && box.scrollWidth > box.clientWidth;
  }

  function onKey(event) {
    const { key, target } = event;
    if (event.defaultPrevented || isOfBrowser(event) || keeps(target, key)) return;
    const step = steps[key] || (target.closest(".plot") && inPictures[key]);
    if (step) selection.step(step);
    else if (key === "/" && selection.keys().length) controls.openFind();
    else if (key === "?") byId("help").showModal();
    else return;
    event.preventDefault();
  }

  // A dialog closes by its button and by a click beside it; Escape does it by itself.
  function buildDialog(dialog) {
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  function build() {
    document.querySelectorAll("dialog").forEach(buildDialog);
    byId("open-help").addEventListener("click", () => byId("help").showModal());
    byId("open-help").hidden = false;
    // Of what this page has none of, no key is told.
    const has = { tokens: selection.keys().length > 0, layers: selection.last.layers, heads: selection.last.heads, mosaic: Boolean(document.querySelector(".heads")) };
    document.querySelectorAll("[data-needs]").forEach((node) => { node.hidden = !has[node.dataset.needs]; });
    document.addEventListener("keydown", onKey);
  }

  return { build };
})();
