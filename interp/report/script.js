// The page's script: reads the data, draws the pictures when they come into view, and keeps one selection
// (a layer, a head, and a token of each prompt) that every picture and table follows. Text enters the page as textContent only;
// text inside pictures was escaped when they were made.
(() => {
  const byId = (id) => document.getElementById(id);
  const darkScheme = matchMedia("(prefers-color-scheme: dark)");
  const selection = { layer: 0, head: 0, tokens: {} };
  const views = [];
  let prompts = {};

  // Where black and white on Viridis have the same contrast (luminance 0.18).
  const viridisMiddle = 0.47;

  const modeBar = {
    displaylogo: false,
    displayModeBar: innerWidth < 640 ? false : "hover",
    responsive: true,
    // Only these: the default bar can send the chart to a cloud service.
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
  };

  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  const chip = (text) => make("bdi", text, "tok");

  // Figure text is escaped for plotly; tables show it as plain text.
  const plain = (text) => String(text).replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");

  function number(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return String(value);
    // Whole numbers, such as ranks, are exact.
    return String(Number.isInteger(value) ? value : Number(value.toPrecision(4))).replace("-", "−");
  }

  // ---- Figures ----

  function assign(figure, patch) {
    const data = figure.data.map((trace, index) => ({ ...trace, ...((patch.data || [])[index] || {}) }));
    return { data, layout: { ...figure.layout, ...(patch.layout || {}) } };
  }

  // Text as plotly shows it literally, and cut to a length: style.py has the same.
  const safe = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text, length) => {
    const characters = [...text];
    return safe(characters.length <= length ? text : characters.slice(0, length - 1).join("") + "…");
  };

  // What the cells of a map show when hovered: its place, and the best tokens where there are some.
  function hoverTexts({ rows, link, best = [], probs = [] }, prompt) {
    const { labels, positions } = prompts[prompt];
    const tables = probs.map(pageData.matrix);
    const places = labels.map((label, column) => ` ${link} ${short(label, 24)} (${positions[column]})`);
    const probability = (value) => (value === null ? "–" : value.toFixed(3));
    return rows.map((name, row) => places.map((place, column) => {
      const ranked = tables.map((table, rank) => `<br>${probability(table[row][column])}  ${short(pageData.word(best[rank], row, column), 24)}`);
      return `<b>${safe(name)}</b>${place}${ranked.join("")}`;
    }));
  }

  const cellTexts = new Map();

  // The texts of a map's cells, made once.
  function textsOf(cells, prompt) {
    const name = JSON.stringify([prompt, cells]);
    if (!cellTexts.has(name)) {
      const [top] = cells.best || [];
      const text = cells.best && cells.rows.map((_, row) => prompts[prompt].labels.map((_, column) => short(pageData.word(top, row, column), 9)));
      cellTexts.set(name, { hovertext: hoverTexts(cells, prompt), ...(text ? { text } : {}) });
    }
    return cellTexts.get(name);
  }

  // Puts arrays in place of references to them.
  function resolved({ cells, ...trace }, prompt) {
    const whole = { ...trace, ...(cells ? textsOf(cells, prompt) : {}) };
    for (const [key, value] of Object.entries(trace)) {
      if (value && value.matrix !== undefined) whole[key] = pageData.matrix(value);
    }
    return whole;
  }

  // What a trace shows for one token: a column of a matrix, or an item of a list.
  function at(pos, properties) {
    const item = (source) => (source.matrix === undefined ? source[pos] : pageData.matrix(source).map((row) => row[pos]));
    return Object.fromEntries(Object.entries(properties).map(([key, source]) => [key, item(source)]));
  }

  // The figure to show: the chosen version, at the selected token if the version follows it.
  function current(view) {
    const option = view.spec.options[view.choice];
    let figure = option.whole || assign(view.spec.base, option.patch || {});
    if (option.follow) {
      const pos = selection.tokens[view.spec.prompt];
      figure = assign(figure, { data: option.follow.map((properties) => at(pos, properties)) });
    }
    return { data: figure.data.map((trace) => resolved(trace, view.spec.prompt)), layout: figure.layout };
  }

  // An axis with as many of its labels as fit; slanted ones need less room.
  function thinned(axis, width) {
    const room = axis.tickangle === undefined ? 24 : 16;
    const step = axis.ticktext ? Math.ceil((axis.ticktext.length * room) / width) : 1;
    if (step < 2) return axis;
    const kept = (values) => values.filter((_, index) => index % step === 0);
    return { ...axis, tickvals: kept(axis.tickvals), ticktext: kept(axis.ticktext) };
  }

  function themed(figure, width) {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = (options) => ({ ...options, color: color("--soft"), title: { ...(options.title || {}), font: { color: color("--soft"), size: 12 } } });
    const layout = {
      ...figure.layout,
      font: { ...figure.layout.font, color: color("--ink"), family: getComputedStyle(document.body).fontFamily },
      xaxis: axis(thinned(figure.layout.xaxis, width)),
      yaxis: axis(figure.layout.yaxis),
      hoverlabel: { ...figure.layout.hoverlabel, bgcolor: color("--ground"), bordercolor: color("--line"), font: { color: color("--ink"), size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--soft"), activecolor: color("--accent") },
      dragmode: width < 640 ? false : "zoom",
    };
    return { data: figure.data.map((trace) => (trace.type === "heatmap" ? themedHeatmap(trace, figure, width, color) : trace)), layout };
  }

  function themedHeatmap(trace, figure, width, color) {
    const shown = { ...trace, colorbar: { ...trace.colorbar, tickfont: { color: color("--soft"), size: 11 }, title: { ...trace.colorbar.title, font: { color: color("--soft"), size: 11.5 } } } };
    if (trace.meta && trace.meta.signed) shown.colorscale = [[0, "#c2410c"], [0.5, color("--raised")], [1, "#0b78b5"]];
    if (width < 560) shown.showscale = figure.data.length > 1;
    if (trace.texttemplate) {
      // Text must fit its cell: smaller on narrow pages, then gone (hovering and the table still have it).
      const size = Math.min(10.5, (width - 120) / trace.z[0].length / 5.4);
      if (size < 7.5) delete shown.texttemplate;
      else shown.textfont = { ...trace.textfont, size };
    }
    const cell = (width - 120) / trace.z[0].length;
    if (cell < 6) shown.xgap = shown.ygap = 0;
    return shown;
  }

  // Places on an axis that belong to the selection.
  function places(axis, prompt) {
    if (!axis) return [];
    if (axis.of === "token") return [selection.tokens[prompt]];
    if (axis.of === "layer") return axis.layers.flatMap((layer, place) => (layer === selection.layer ? [place] : []));
    const chosen = (place) => !axis.layers.length || axis.layers[place] === selection.layer;
    return axis.heads.flatMap((head, place) => (head === selection.head && chosen(place) ? [place] : []));
  }

  function shapes(view) {
    const { x, y } = view.spec.options[view.choice];
    const columns = places(x, view.spec.prompt);
    const rows = places(y, view.spec.prompt);
    if (x && y) {
      // Black around white is seen on any colour of the scale.
      const lines = [{ color: "#000", width: 4 }, { color: "#fff", width: 2 }];
      return columns.flatMap((column) => rows.flatMap((row) => lines.map((line) => ({ type: "rect", line, x0: column - 0.5, x1: column + 0.5, y0: row - 0.5, y1: row + 0.5 }))));
    }
    const fillcolor = getComputedStyle(document.documentElement).getPropertyValue("--mark-line").trim();
    const band = { type: "rect", layer: "below", line: { width: 0 }, fillcolor, opacity: 0.16 };
    return [
      ...columns.map((column) => ({ ...band, yref: "paper", x0: column - 0.5, x1: column + 0.5, y0: 0, y1: 1 })),
      ...rows.map((row) => ({ ...band, xref: "paper", x0: 0, x1: 1, y0: row - 0.5, y1: row + 0.5 })),
    ];
  }

  async function draw(view) {
    if (view.heads) return view.heads.draw();
    const figure = themed(current(view), view.plot.clientWidth);
    figure.layout.shapes = shapes(view);
    const first = !view.drawn;
    view.drawn = true;
    await Plotly.react(view.plot, figure.data, figure.layout, modeBar);
    if (first) view.plot.on("plotly_click", (event) => choosePoint(view, event.points[0]));
    if (first) view.plot.on("plotly_afterplot", () => inkCells(view.plot));
    inkCells(view.plot);
    view.plot.style.minHeight = "";
    view.plot.dataset.drawn = "true";
    if (view.details.open) fillTable(view);
  }

  // Text in cells is white on the dark half of the scale and black on the light one. Plotly's own choice stays white for longer,
  // where white on green is hard to read.
  function inkCells(plot) {
    const [trace] = plot.data;
    if (!trace.texttemplate) return;
    const darkEnd = trace.colorscale === "Viridis_r" ? trace.zmax : trace.zmin;
    for (const text of plot.querySelectorAll(".heatmap-label text")) {
      const depth = Math.abs((text.__data__.z - darkEnd) / (trace.zmax - trace.zmin));
      text.style.fill = depth < viridisMiddle ? "#fff" : "#000";
    }
  }

  function choosePoint(view, point) {
    const { x, y } = view.spec.options[view.choice];
    const change = {};
    for (const [axis, value] of [[x, point.x], [y, point.y]]) {
      if (!axis) continue;
      const place = Math.round(value);
      if (axis.of === "token") change.pos = place;
      if (axis.of === "head") change.head = axis.heads[place];
      if (axis.of !== "token" && axis.layers[place] !== null && axis.layers[place] !== undefined) change.layer = axis.layers[place];
    }
    select(view.spec.prompt, change);
  }

  // ---- The table behind each picture ----

  // The tokens of a prompt, each with its position.
  const named = (prompt) => prompts[prompt].labels.map((label, index) => `${prompts[prompt].positions[index]} ${label}`);

  function axisLabels(axis, layoutAxis, prompt) {
    if (axis && axis.of === "token") return named(prompt);
    if (axis) return axis.labels;
    return (layoutAxis.ticktext || []).map(plain);
  }

  function tableOf(view) {
    const figure = current(view);
    const { x, y } = view.spec.options[view.choice];
    const [trace] = figure.data;
    const xLabels = axisLabels(x, figure.layout.xaxis, view.spec.prompt);
    const yLabels = axisLabels(y, figure.layout.yaxis, view.spec.prompt);
    if (trace.type === "heatmap") {
      const values = trace.customdata || trace.z;
      const cell = (row, column) => `${trace.text ? plain(trace.text[row][column]) + " " : ""}${number(values[row][column])}`;
      const rows = yLabels.map((label, row) => [label, ...xLabels.map((_, column) => cell(row, column))]);
      const [first, last] = figure.layout.yaxis.range || [0, 1];
      return { columns: [(y && y.of) || "layer", ...xLabels], rows: first < last ? rows.reverse() : rows };
    }
    const flat = trace.orientation === "h";
    const labels = flat ? yLabels : xLabels;
    const values = (one) => (flat ? one.x : one.type === "scatter" ? one.customdata || one.y : one.y);
    const unit = plain((flat ? figure.layout.xaxis : figure.layout.yaxis).title.text);
    const columns = ["", ...figure.data.map((one) => (one.name ? plain(one.name) : unit))];
    return { columns, rows: labels.map((label, row) => [label, ...figure.data.map((one) => number(values(one)[row]))]) };
  }

  const fillTable = (view) => view.details.querySelector(".scroll").replaceChildren(tableFrom(tableOf(view)));

  function tableFrom({ columns, rows }) {
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
    return table;
  }

  // ---- Switches ----

  function buildSwitch(view) {
    const holder = view.node.querySelector(".switch");
    const { options } = view.spec;
    if (options.length < 2) return;
    if (options.length > 5) {
      const menu = make("select");
      menu.setAttribute("aria-label", "What the picture shows");
      options.forEach((option, index) => menu.append(new Option(option.label, index)));
      menu.addEventListener("change", () => choose(view, Number(menu.value)));
      holder.append(menu);
      return;
    }
    holder.setAttribute("role", "group");
    holder.setAttribute("aria-label", "What the picture shows");
    options.forEach((option, index) => {
      const button = make("button", option.label);
      button.type = "button";
      button.setAttribute("aria-pressed", index === 0);
      button.addEventListener("click", () => {
        for (const other of holder.children) other.setAttribute("aria-pressed", other === button);
        choose(view, index);
      });
      holder.append(button);
    });
  }

  function choose(view, index) {
    view.choice = index;
    draw(view);
  }

  // ---- Selection ----

  function select(prompt, { pos, layer, head }) {
    if (pos !== undefined) selection.tokens[prompt] = pos;
    if (layer !== undefined) selection.layer = layer;
    if (head !== undefined) selection.head = head;
    showSelection();
    for (const view of views) {
      if (view.spec.type === "linked") fillLinked(view);
      else if (view.heads) view.heads.update();
      else if (view.drawn && view.spec.options[view.choice].follow) draw(view);
      else if (view.drawn) Plotly.relayout(view.plot, { shapes: shapes(view) });
    }
  }

  function showSelection() {
    for (const strip of document.querySelectorAll(".strip")) {
      const chosen = selection.tokens[strip.dataset.prompt];
      [...strip.children].forEach((button, pos) => button.setAttribute("aria-pressed", pos === chosen));
    }
    for (const holder of document.querySelectorAll(".table[data-prompt]")) {
      const chosen = selection.tokens[holder.dataset.prompt];
      holder.querySelectorAll("tbody tr").forEach((row, pos) => row.classList.toggle("chosen", pos === chosen));
    }
    const menu = byId("select-token");
    const shown = menu.value.split(":")[0] || Object.keys(prompts)[0];
    menu.value = `${shown}:${selection.tokens[shown]}`;
    byId("select-layer").value = selection.layer;
    byId("shown-layer").textContent = selection.layer;
    byId("select-head").value = selection.head;
    byId("shown-head").textContent = selection.head;
  }

  function fillLinked(view) {
    const { spec, node } = view;
    const byHead = spec.by === "head";
    const pos = byHead ? selection.head : selection.tokens[spec.prompt];
    const at = spec.layers.indexOf(selection.layer);
    const where = node.querySelector(".where");
    if (byHead) where.replaceChildren(`Head L${selection.layer}H${selection.head}`);
    else where.replaceChildren(`Layer ${selection.layer}, `, chip(prompts[spec.prompt].labels[pos]), ` (position ${prompts[spec.prompt].positions[pos]})`);
    const table = make("table");
    const head = table.createTHead().insertRow();
    for (const column of spec.columns) {
      const cell = make("th", column);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const line of spec.lines) {
      const row = at < 0 ? null : line.rows[at];
      if (row !== null && row !== undefined) fillLine(body.insertRow(), line.cells, row, pos);
    }
    node.querySelector(".scroll").replaceChildren(table);
  }

  function fillLine(line, cells, row, pos) {
    for (const source of cells) {
      const cell = line.insertCell();
      if (source.words) {
        cell.className = source.words.length > 1 ? "tokens" : "";
        cell.append(...source.words.flatMap((plane) => [chip(pageData.word(plane, row, pos)), " "]));
      } else {
        cell.textContent = source.matrix === undefined ? source : number(pageData.matrix(source)[row][pos]);
      }
    }
  }

  function buildStrip(strip) {
    const { labels, ids } = prompts[strip.dataset.prompt];
    strip.append(...labels.map((label, pos) => {
      const button = make("button", undefined, "pick");
      button.type = "button";
      button.append(chip(label), make("small", String(ids[pos])));
      button.addEventListener("click", () => select(strip.dataset.prompt, { pos }));
      return button;
    }));
  }

  // The axes of all versions of a picture; other views have none.
  const axesOf = ({ options = [] }) => options.flatMap(({ x, y }) => [x, y].filter(Boolean));

  // How many heads a view knows.
  function headsOf(spec) {
    if (spec.type === "linked") {
      const matrix = spec.by === "head" && spec.lines.flatMap((line) => line.cells).find((cell) => cell.matrix !== undefined);
      return matrix ? pageData.matrix(matrix)[0].length : 0;
    }
    if (spec.type === "heads") return Math.max(...spec.heads) + 1;
    return Math.max(0, ...axesOf(spec).flatMap((axis) => axis.heads || []).map((head) => head + 1));
  }

  function buildSlider(id, last, change) {
    const slider = byId(id);
    slider.max = last;
    slider.addEventListener("input", () => change(Number(slider.value)));
  }

  function buildSelection() {
    const layers = views.flatMap(({ spec }) => (spec.layers ? spec.layers : axesOf(spec).flatMap((axis) => axis.layers || [])));
    const last = Math.max(0, ...layers.filter((layer) => layer !== null));
    const heads = Math.max(0, ...views.map(({ spec }) => headsOf(spec)));
    selection.layer = last;
    // With nothing but heads on the page there is no layer to end on: it opens on a head worth looking at.
    if (views.length && views.every(({ spec }) => spec.type === "heads")) [selection.layer, selection.head] = views[0].spec.start;
    const menu = byId("select-token");
    const keys = Object.keys(prompts);
    for (const key of keys) {
      selection.tokens[key] = prompts[key].labels.length - 1;
      const pictures = views.filter(({ spec }) => spec.type === "picture" && spec.prompt === key);
      if (pictures.length && pictures.every(({ spec }) => spec.start)) [selection.layer, selection.tokens[key]] = pictures[0].spec.start;
      const group = keys.length > 1 ? make("optgroup") : menu;
      if (group !== menu) {
        group.label = `prompt ${keys.indexOf(key) + 1}`;
        menu.append(group);
      }
      named(key).forEach((name, pos) => group.append(new Option(name, `${key}:${pos}`)));
    }
    if (keys.length) menu.value = `${keys[0]}:${selection.tokens[keys[0]]}`;
    menu.addEventListener("change", () => {
      const [key, pos] = menu.value.split(":");
      select(key, { pos: Number(pos) });
    });
    buildSlider("select-layer", last, (layer) => select(keys[0], { layer }));
    buildSlider("select-head", Math.max(0, heads - 1), (head) => select(keys[0], { head }));
    document.querySelectorAll(".strip").forEach(buildStrip);
    menu.parentElement.hidden = keys.length === 0;
    byId("select-head").parentElement.hidden = heads === 0;
    byId("selection").hidden = keys.length === 0 && heads === 0;
    showSelection();
  }

  // ---- Start ----

  // What the script of the heads shares with this one.
  const tools = { selection, select, make, chip, number, short, themed, thinned, tableFrom, modeBar, prompt: (key) => prompts[key] };

  function collectViews(blocks) {
    for (const node of document.querySelectorAll("[data-block]")) {
      const spec = blocks[Number(node.dataset.block)];
      const view = { node, spec, choice: 0, drawn: false, plot: node.querySelector(".plot"), details: node.querySelector("details") };
      views.push(view);
      if (spec.type === "picture") {
        buildSwitch(view);
        view.details.addEventListener("toggle", () => view.details.open && fillTable(view));
      }
      if (spec.type === "heads") view.heads = headsView(view, tools);
    }
  }

  function drawWhenSeen() {
    const pictures = views.filter((view) => view.spec.type !== "linked");
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const view = pictures.find((one) => one.node === entry.target);
        if (entry.isIntersecting && !view.drawn) draw(view);
      }
    }, { rootMargin: "600px" });
    for (const view of pictures) seen.observe(view.node);
    const redraw = () => pictures.filter((view) => view.drawn).forEach(draw);
    darkScheme.addEventListener("change", redraw);
    // On paper everything is drawn, in the light colours.
    addEventListener("beforeprint", () => {
      document.documentElement.classList.add("printing");
      pictures.forEach(draw);
    });
    addEventListener("afterprint", () => {
      document.documentElement.classList.remove("printing");
      redraw();
    });
    let width = innerWidth;
    let waiting = 0;
    addEventListener("resize", () => {
      if (innerWidth === width) return;
      width = innerWidth;
      clearTimeout(waiting);
      waiting = setTimeout(redraw, 150);
    });
  }

  async function start() {
    const data = await pageData.read();
    prompts = data.prompts;
    collectViews(data.blocks);
    buildSelection();
    for (const view of views) if (view.spec.type === "linked") fillLinked(view);
    await packed.run("plotly");
    drawWhenSeen();
  }

  start().catch(showTrouble);
})();
