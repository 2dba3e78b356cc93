// The tables of the page: those of pictures, those that follow the selection, and those that were written into the page.
const tables = (() => {
  const { make, chip, number } = writing;
  const { now } = selection;
  const headName = /^L(\d+)H(\d+)$/;

  // ---- Tables made from rows ----

  // A table whose first column names the rows. Where rows and columns stand for places, a click chooses them and they are marked.
  function from({ columns, rows, prompt, down, across, rowPlaces, columnPlaces }) {
    const table = make("table");
    const head = table.createTHead().insertRow();
    columns.forEach((column, index) => {
      const cell = make("th", column, index ? "num" : "");
      cell.scope = "col";
      head.append(cell);
    });
    const body = table.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      row.forEach((value, index) => {
        const cell = make(index ? "td" : "th", value, index ? "num" : "");
        if (!index) cell.scope = "row";
        line.append(cell);
      });
    }
    if (selection.selects(down) || selection.selects(across)) {
      table.className = "pickable";
      table.linked = { prompt, down, across, rowPlaces, columnPlaces };
      table.addEventListener("click", chooseCell);
      mark(table);
    }
    return table;
  }

  function chooseCell(event) {
    const cell = event.target.closest("td, th");
    const { prompt, down, across, rowPlaces = [], columnPlaces = [] } = event.currentTarget.linked;
    if (!cell) return;
    const row = cell.parentElement.rowIndex - 1;
    selection.choosePlaces(prompt, [[row < 0 ? null : down, rowPlaces[row]], [cell.cellIndex ? across : null, columnPlaces[cell.cellIndex - 1]]]);
  }

  // Marks the rows that are selected, and in them the column where both are.
  function mark(table) {
    if (!table || !table.linked) return;
    const { prompt, down, across, rowPlaces = [], columnPlaces = [] } = table.linked;
    table.querySelectorAll(".chosen").forEach((node) => setChosen(node, false));
    const rows = selection.places(down, prompt).map((place) => table.tBodies[0].rows[rowPlaces.indexOf(place)]).filter(Boolean);
    const columns = selection.places(across, prompt).map((place) => columnPlaces.indexOf(place) + 1);
    const lines = selection.selects(down) ? rows : [...table.tBodies[0].rows];
    for (const row of lines) {
      if (!selection.selects(across)) setChosen(row, true);
      columns.forEach((column) => setChosen(row.cells[column], true));
    }
  }

  // Marked for the eye and for those who hear the page.
  function setChosen(node, chosen) {
    node.classList.toggle("chosen", chosen);
    if (chosen) node.setAttribute("aria-current", "true");
    else node.removeAttribute("aria-current");
  }

  // What the figure around a table says, as the table's own caption for those who hear the page.
  function caption(table, holder) {
    const words = holder.closest("figure").querySelector("figcaption");
    table.createCaption().textContent = words ? words.textContent : "";
    table.caption.className = "aside";
  }

  // A box is a stop of the Tab key only where there is something to scroll to.
  function stop(box) {
    if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }

  const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => stop(target)));

  // Puts a table, with its copies, into the details of a picture.
  function fill(details, table) {
    const holder = details.querySelector(".scroll");
    holder.replaceChildren(from(table));
    caption(holder.firstChild, holder);
    stop(holder);
    holder.data = table.data;
    if (!details.querySelector(".take")) holder.after(tableFiles.line(() => holder.data()));
  }

  // ---- Tables that follow the selection ----

  function fillLinked(view) {
    const { spec, node } = view;
    const byHead = spec.by === "head";
    const pos = byHead ? now.head : now.tokens[spec.prompt];
    const at = spec.layers.indexOf(now.layer);
    const where = node.querySelector(".where");
    const { labels, positions } = byHead ? {} : selection.prompt(spec.prompt);
    if (byHead) where.replaceChildren(`Head L${now.layer}H${now.head}`);
    else where.replaceChildren(`Layer ${now.layer}, `, chip(labels[pos]), ` (position ${positions[pos]})`);
    const table = make("table");
    const head = table.createTHead().insertRow();
    for (const column of spec.columns) {
      const cell = make("th", column);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    const lines = spec.lines.map(({ cells, rows }) => ({ cells, row: at < 0 ? null : rows[at] })).filter(({ row }) => row !== null && row !== undefined);
    for (const { cells, row } of lines) fillLine(body.insertRow(), cells, row, pos);
    const holder = node.querySelector(".scroll");
    holder.replaceChildren(table);
    caption(table, holder);
    stop(holder);
    const place = byHead ? [["layer", now.layer], ["head", now.head]] : [["layer", now.layer], ["position", positions[pos]], ["token", labels[pos]]];
    holder.data = () => ({
      columns: [...place.map(([name]) => name), ...spec.columns],
      rows: lines.map(({ cells, row }) => [...place.map(([, value]) => value), ...cells.map((source) => valueOf(source, row, pos))]),
    });
    if (!node.querySelector(".take")) holder.after(tableFiles.line(() => holder.data()));
  }

  function valueOf(source, row, pos) {
    if (source.words) {
      const words = source.words.map((plane) => pageData.word(plane, row, pos));
      return words.length > 1 ? words : words[0];
    }
    if (source.matrix !== undefined) return pageData.matrix(source)[row][pos];
    return writing.valueOf(source);
  }

  function fillLine(line, cells, row, pos) {
    for (const source of cells) {
      const cell = line.insertCell();
      if (source.words) {
        cell.className = source.words.length > 1 ? "tokens" : "";
        cell.append(...source.words.flatMap((plane) => [chip(pageData.word(plane, row, pos)), " "]));
      } else cell.textContent = source.matrix === undefined ? source : number(valueOf(source, row, pos));
    }
  }

  // ---- Tables written into the page ----

  // A cell's number where it shows nothing but one, else its text.
  function read(cell, numeric) {
    const text = cell.textContent.trim();
    const value = writing.valueOf(text.replace("−", "-").replaceAll(",", ""));
    return numeric && typeof value === "number" ? value : text;
  }

  function dataOf(table) {
    const numeric = [...table.classList].filter((name) => /^num\d+$/.test(name)).map((name) => Number(name.slice(3)));
    const columns = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    return { columns, rows: [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell, index) => read(cell, numeric.includes(index)))) };
  }

  function placeOf(row) {
    const { layer, head, pos } = row.dataset;
    const whole = (text) => (text === undefined ? undefined : Number(text));
    return { layer: whole(layer), head: whole(head), pos: whole(pos) };
  }

  // A button in place of a cell's text, which chooses what the cell names.
  function chooser(cell, prompt, place) {
    const one = writing.button(undefined, () => selection.choose(prompt, place), "choose");
    one.append(...cell.childNodes);
    cell.append(one);
  }

  function buildWritten(holder) {
    const table = holder.querySelector("table");
    const { prompt } = holder.dataset;
    holder.after(tableFiles.line(() => dataOf(table)));
    [...table.tBodies[0].rows].forEach((row, pos) => {
      if (prompt) row.addEventListener("click", () => selection.choose(prompt, { pos }));
      const place = placeOf(row);
      if (Object.values(place).some((value) => value !== undefined)) chooser(row.cells[0], holder.dataset.of, place);
      if (!selection.last.heads) return;
      for (const cell of row.cells) {
        const found = cell.childElementCount ? null : headName.exec(cell.textContent);
        if (found) chooser(cell, null, { layer: Number(found[1]), head: Number(found[2]) });
      }
    });
  }

  function build() {
    document.querySelectorAll(".table").forEach(buildWritten);
    document.querySelectorAll(".scroll").forEach((box) => resized.observe(box));
  }

  // The row of the selected token in the tables of a prompt's tokens; a long one is scrolled to it.
  function markWritten() {
    for (const holder of document.querySelectorAll(".table[data-prompt]")) {
      holder.querySelectorAll("tr.chosen").forEach((row) => setChosen(row, false));
      const row = holder.querySelector("tbody").rows[now.tokens[holder.dataset.prompt]];
      setChosen(row, true);
      showWithin(holder, row);
    }
  }

  // Scrolls a box, and not the page, so that something in it is seen.
  function showWithin(box, node) {
    if (box.scrollHeight <= box.clientHeight) return;
    const [outer, inner] = [box.getBoundingClientRect(), node.getBoundingClientRect()];
    if (inner.top < outer.top + 30) box.scrollTop -= outer.top + 30 - inner.top;
    if (inner.bottom > outer.bottom) box.scrollTop += inner.bottom - outer.bottom;
  }

  return { from, mark, fill, fillLinked, markWritten, showWithin, build };
})();
