// How the page makes elements and writes text and numbers. Text enters the page as textContent only; text inside pictures was escaped
// when they were made.
const writing = (() => {
  const byId = (id) => document.getElementById(id);

  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  function button(text, action, className) {
    const node = make("button", text, className);
    node.type = "button";
    node.addEventListener("click", action);
    return node;
  }

  const chip = (text) => make("bdi", text, "tok");

  // Text as plotly shows it literally, and cut to a length: style.py has the same.
  const safe = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text, length) => {
    const characters = [...text];
    return safe(characters.length <= length ? text : characters.slice(0, length - 1).join("") + "…");
  };

  // Figure text is escaped for plotly; tables show it as plain text.
  const plain = (text) => String(text).replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");

  function number(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return String(value);
    // Whole numbers, such as ranks, are exact.
    return String(Number.isInteger(value) ? value : Number(value.toPrecision(4))).replace("-", "−");
  }

  // A text as a number where it is nothing else.
  const numeral = /^[-+]?\d*\.?\d+(e[-+]?\d+)?$/i;
  const valueOf = (text) => (numeral.test(text) ? Number(text) : text);

  // A colour of the style, as it is now.
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  return { byId, make, button, chip, safe, short, plain, number, valueOf, color };
})();
