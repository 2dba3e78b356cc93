// The section of all heads: the mosaic, the selected head beside it, and the tokens that its query looks at. The bytes are unpacked when
// the mosaic comes into view.
const headsView = (view) => {
  const { spec, node, plot } = view;
  const { make, button, number, short } = writing;
  const { now } = selection;
  const { labels, positions } = selection.prompt(spec.prompt);
  const patterns = headPatterns(spec);
  const { all, count } = patterns;
  const canvas = node.querySelector("canvas");
  const mosaic = headMosaic(spec, canvas, () => node.clientWidth, patterns);
  const where = node.querySelector(".where");
  const strip = node.querySelector(".strip");
  const [ofHeads, ofPattern] = node.querySelectorAll("details");
  const most = 192;
  let weighted = false;
  let order = -1;
  let shown = null;
  let hovertext = null;

  const nameOf = ({ layer, head }) => `L${layer}H${head}`;
  const scoreOf = (score, { row, column }) => pageData.matrix(score)[row][column];
  const chosen = () => all.find(({ layer, head }) => layer === now.layer && head === now.head);
  const choose = (one) => one && selection.choose(null, { layer: one.layer, head: one.head });

  // Tokens stand together in a row where a prompt has more of them than a page has room for.
  const queryRow = () => Math.floor(now.tokens[spec.prompt] / spec.step);
  const lastOf = (row) => Math.min((row + 1) * spec.step, labels.length) - 1;
  const nameOfRow = (row) => (spec.step === 1 ? labels[row] : `${labels[row * spec.step]} … ${labels[lastOf(row)]}`);
  const placeOfRow = (row) => (spec.step === 1 ? positions[row] : `${positions[row * spec.step]} to ${positions[lastOf(row)]}`);

  // ---- What is said about a head ----

  function sentence(one) {
    const group = spec.heads.filter((_, column) => spec.kv[column] === spec.kv[one.column]);
    const others = group.filter((head) => head !== one.head).map((head) => `H${head}`);
    const shared = `reads key/value head ${spec.kv[one.column]}${others.length ? ` as do ${others.join(", ")}` : ""}`;
    const window = spec.windows[one.row];
    const reach = window === null ? "sees every earlier token" : `sees a window of ${window} tokens`;
    const scores = spec.scores.map((score) => `${score.label.toLowerCase()} ${number(scoreOf(score, one))}`);
    return `${nameOf(one)} ${reach}, ${shared}; ${scores.join(", ")}.`;
  }

  function say(one) {
    const held = `L${spec.layers[0]} to L${spec.layers.at(-1)}, heads ${spec.heads.join(", ")}`;
    where.textContent = one ? sentence(one) : `L${now.layer}H${now.head} is not among the heads here: ${held}.`;
  }

  // ---- The selected head ----

  async function drawDetail() {
    const one = chosen();
    const z = one ? patterns.pattern(one, weighted) : Array.from({ length: count }, () => new Array(count).fill(null));
    const [base] = spec.detail.data;
    const title = weighted ? "norm of what is written" : base.colorbar.title.text;
    const trace = { ...base, z, colorbar: { ...base.colorbar, title: { ...base.colorbar.title, text: title } } };
    if (weighted) trace.zmax = z.reduce((high, row) => row.reduce((top, value) => Math.max(top, value ?? 0), high), 0) || 1;
    trace.hovertemplate = `${count <= most ? "%{hovertext}" : "query %{y}, key %{x}"}<br>%{z:.3~g}<extra></extra>`;
    if (count <= most) trace.hovertext = cellNames();
    const { yaxis } = spec.detail.layout;
    const layout = { ...spec.detail.layout, yaxis: figures.thinned({ ...yaxis, tickangle: 0 }, spec.detail.layout.height - 110) };
    const figure = figures.themed({ data: [trace], layout }, plot.clientWidth);
    figure.layout.shapes = marks();
    const first = !view.drawn;
    view.drawn = true;
    shown = { one, z, title, top: trace.zmax };
    await Plotly.react(plot, figure.data, figure.layout, pictures.modeBar);
    if (first) plot.on("plotly_click", ({ points: [{ y }] }) => selection.choose(spec.prompt, { pos: lastOf(Math.round(y)) }));
    plot.style.minHeight = "";
    plot.dataset.drawn = "true";
  }

  function cellNames() {
    const names = Array.from({ length: count }, (_, row) => `${short(nameOfRow(row), 24)} (${placeOfRow(row)})`);
    hovertext = hovertext || names.map((query) => names.map((key) => `${query} to ${key}`));
    return hovertext;
  }

  // The row of the selected query.
  function marks() {
    const row = queryRow();
    const lines = [{ color: "#000", width: 3 }, { color: "#fff", width: 1.5 }];
    return lines.map((line) => ({ type: "rect", line, x0: -0.5, x1: row + 0.5, y0: row - 0.5, y1: row + 0.5 }));
  }

  // Each token as deep in colour as the selected query looks at it; the second line says how much.
  function showStrip() {
    const row = shown.z[queryRow()];
    [...strip.children].forEach((one, pos) => {
      const weight = row[Math.floor(pos / spec.step)];
      const part = weight === null ? 0 : Math.round((100 * weight) / shown.top);
      const text = weight === null ? "–" : weighted ? number(Number(weight.toPrecision(2))) : weight.toFixed(2);
      const ground = part ? `color-mix(in srgb, var(--heat) ${part}%, var(--ground))` : "";
      if (one.style.background !== ground) one.style.background = ground;
      one.classList.toggle("unseen", weight === null);
      const small = one.lastChild;
      if (small.textContent !== text) small.textContent = text;
    });
    tables.showWithin(strip, strip.children[now.tokens[spec.prompt]]);
  }

  // ---- Tables ----

  function headTable() {
    const columns = ["head", "key/value head", "sees", ...spec.scores.map((score) => score.label)];
    const sees = ({ row }) => (spec.windows[row] === null ? "all before" : `${spec.windows[row]} tokens`);
    const heads = mosaic.ordered(order);
    return {
      columns,
      rows: heads.map((one) => [nameOf(one), String(spec.kv[one.column]), sees(one), ...spec.scores.map((score) => number(scoreOf(score, one)))]),
      prompt: spec.prompt,
      down: { of: "head", layers: heads.map(({ layer }) => layer), heads: heads.map(({ head }) => head) },
      rowPlaces: heads.map((_, place) => place),
      data: () => ({
        columns: ["layer", ...columns],
        rows: heads.map((one) => [one.layer, one.head, spec.kv[one.column], sees(one), ...spec.scores.map((score) => scoreOf(score, one))]),
      }),
    };
  }

  // The selected head's pattern: all of it, or of a long prompt what the selected query reads; a file has all of it.
  function patternTable() {
    const { z, title } = shown;
    const rows = count <= most ? z.map((_, row) => row) : [queryRow()];
    const names = rows.length > 1 ? z.map((_, row) => row) : z.map((_, row) => row).slice(0, rows[0] + 1);
    const named = (row) => `${placeOfRow(row)} ${nameOfRow(row)}`;
    const held = { columns: ["layer", "head", "query", "query token", "key", "key token", title] };
    const place = (row) => [placeOfRow(row), nameOfRow(row)];
    const data = () => ({ ...held, rows: z.flatMap((line, query) => line.slice(0, query + 1).map((weight, key) => [now.layer, now.head, ...place(query), ...place(key), weight])) });
    // One query reads more easily downwards.
    if (rows.length === 1) return { columns: ["key", `weight from ${named(rows[0])}`], rows: names.map((key) => [named(key), number(z[rows[0]][key])]), data };
    return { columns: ["query", ...names.map(named)], rows: rows.map((query) => [named(query), ...names.map((key) => (z[query][key] === null ? "" : number(z[query][key])))]), data };
  }

  function fillTables() {
    if (ofHeads.open) tables.fill(ofHeads, headTable());
    if (ofPattern.open && shown) tables.fill(ofPattern, patternTable());
  }

  // ---- Controls ----

  function buildControls() {
    const holder = node.querySelector(".switch");
    const menu = make("select");
    menu.setAttribute("aria-label", "Order of the heads");
    menu.append(new Option("By layer", -1), ...spec.scores.map((score, index) => new Option(`By ${score.label.toLowerCase()}, ${score.least ? "least" : "most"} first`, index)));
    const setOrder = (place) => {
      order = place;
      menu.value = order;
      if (view.drawn) paint();
      fillTables();
    };
    menu.addEventListener("change", () => {
      setOrder(Number(menu.value));
      address.changed();
    });
    holder.append(menu);
    address.keep(`order${node.dataset.block}`, spec.scores.length, () => order + 1, (place) => setOrder(place - 1));
    if (spec.norms) buildWeighting(holder);
    canvas.addEventListener("click", (event) => choose(mosaic.under(event)));
    canvas.addEventListener("mousemove", (event) => say(mosaic.under(event) || chosen()));
    canvas.addEventListener("mouseleave", () => say(chosen()));
    canvas.addEventListener("keydown", onKey);
    ofHeads.addEventListener("toggle", fillTables);
    ofPattern.addEventListener("toggle", fillTables);
  }

  function buildWeighting(holder) {
    const press = () => buttons.forEach((one, place) => one.setAttribute("aria-pressed", weighted === (place === 1)));
    const set = (place) => {
      weighted = place === 1;
      press();
      if (view.drawn) draw();
    };
    const buttons = ["Attention", "Times what would be written"].map((label, place) => button(label, () => {
      set(place);
      address.changed();
    }));
    press();
    holder.append(...buttons);
    address.keep(`weighting${node.dataset.block}`, 1, () => Number(weighted), set);
  }

  function onKey(event) {
    const one = mosaic.next(event.key, chosen());
    if (!one) return;
    event.preventDefault();
    choose(one);
  }

  // ---- What the page calls ----

  const paint = () => mosaic.paint({ order, weighted, chosen: chosen() });

  async function draw() {
    await patterns.read();
    paint();
    say(chosen());
    await drawDetail();
    showStrip();
    fillTables();
  }

  // Another token of the same head needs a mark and a strip; another head all of it.
  function update() {
    if (chosen() !== shown.one) return draw();
    if (!chosen()) say();
    showStrip();
    fillTables();
    return Plotly.relayout(plot, { shapes: marks() });
  }

  view.draw = draw;
  view.update = update;
  buildControls();
};
