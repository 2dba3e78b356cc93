// Tables to take along: as CSV (RFC 4180) or as JSON, copied or downloaded, with numbers as the page holds them.
const tableFiles = (() => {
  const { make, button } = writing;
  const forAMoment = 1600;
  // Spreadsheets run what begins so, and show what stands behind an apostrophe as it is.
  const startsFormula = /^[=+\-@\t]/;
  const kinds = { CSV: { write: csv, type: "text/csv" }, JSON: { write: json, type: "application/json" } };

  // Names that no two columns share, and none empty.
  function distinct(columns) {
    const seen = new Map();
    return columns.map((column) => {
      const name = column || "name";
      seen.set(name, (seen.get(name) || 0) + 1);
      return seen.get(name) > 1 ? `${name} ${seen.get(name)}` : name;
    });
  }

  function field(value) {
    const text = value === null || value === undefined ? "" : Array.isArray(value) ? value.join(" ") : String(value);
    const safe = startsFormula.test(text) && typeof writing.valueOf(text) !== "number" ? `'${text}` : text;
    return /[",\r\n]|^\s|\s$/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  function csv({ columns, rows }) {
    return [distinct(columns), ...rows].map((row) => row.map(field).join(",") + "\r\n").join("");
  }

  // One object for each row.
  function json({ columns, rows }) {
    const names = distinct(columns);
    return JSON.stringify(rows.map((row) => Object.fromEntries(row.map((value, index) => [names[index], value ?? null]))), null, 1);
  }

  function download(text, type, name) {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // Browsers may keep the clipboard from a page of the disk; a selected text area can be copied everywhere.
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = make("textarea", text, "aside");
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  function say(one, text) {
    const before = one.dataset.kind;
    one.textContent = text;
    setTimeout(() => { one.textContent = before; }, forAMoment);
  }

  function kindButton(kind, verb, act) {
    const one = button(kind, () => act(one, kinds[kind]));
    one.dataset.kind = kind;
    one.setAttribute("aria-label", `${verb} as ${kind}`);
    return one;
  }

  // The name of a table's file: its section's, numbered where the section has several.
  function nameOf(node) {
    const section = node.closest("section");
    const number = [...section.querySelectorAll(".take")].indexOf(node) + 1;
    return `${section.id}${number > 1 ? `-${number}` : ""}`;
  }

  // A line of buttons for the table that data() gives.
  function line(data) {
    const node = make("div", undefined, "take");
    node.setAttribute("role", "group");
    node.setAttribute("aria-label", "Take the table along");
    const copying = async (one, { write }) => say(one, (await copy(write(data()))) ? "copied" : "not allowed here");
    const saving = (one, { write, type }) => download(write(data()), type, `${nameOf(node)}.${one.dataset.kind.toLowerCase()}`);
    node.append("Copy ", ...Object.keys(kinds).map((kind) => kindButton(kind, "Copy", copying)));
    node.append(" Download ", ...Object.keys(kinds).map((kind) => kindButton(kind, "Download", saving)));
    return node;
  }

  return { line, csv, json };
})();
