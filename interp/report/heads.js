// All heads as one mosaic, the selected one beside it, and the tokens that its query looks at. The bytes are those of pack_mosaic in
// render.py; they are unpacked when the mosaic comes into view.
const headsView = (view, tools) => {
  const { spec, node, plot, details } = view;
  const { selection } = tools;
  const { labels, positions } = tools.prompt(spec.prompt);
  const count = labels.length;
  const pairs = (count * (count + 1)) / 2;
  const canvas = node.querySelector("canvas");
  const where = node.querySelector(".where");
  const strip = node.querySelector(".strip");
  const all = spec.layers.flatMap((layer, row) => spec.heads.map((head, column) => ({ layer, head, row, column })));
  const numbers = (reference) => pageData.matrix(reference);
  // The stops of the figure's own scale: a part from 0 to 1, and red, green and blue.
  const stops = spec.detail.data[0].colorscale.map(([part, colour]) => [part, [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16))]);
  const largestTile = 30;
  const smallestTile = 6;
  const namedCells = 192;
  let bytes = null;
  let weighted = false;
  let order = -1;
  let places = [];
  let hovertext = null;

  // ---- Numbers ----

  const nameOf = ({ layer, head }) => `L${layer}H${head}`;
  const scoreOf = (score, { row, column }) => numbers(score)[row][column];
  const chosen = () => all.find(({ layer, head }) => layer === selection.layer && head === selection.head);
  const indexOf = ({ row, column }) => row * spec.heads.length + column;

  // Calls visit(query, key, weight) for every pair of a head, key by key as they are packed.
  function visitPairs(one, visit) {
    const index = indexOf(one);
    let at = index * pairs;
    const norms = all.length * pairs + index * count;
    const greatest = weighted ? numbers(spec.norms)[one.row][one.column] / 255 : 1;
    for (let key = 0; key < count; key++) {
      const factor = (weighted ? bytes[norms + key] * greatest : 1) / 255;
      for (let query = key; query < count; query++) visit(query, key, bytes[at++] * factor);
    }
  }

  function patternOf(one) {
    const rows = Array.from({ length: count }, () => new Array(count).fill(null));
    visitPairs(one, (query, key, weight) => { rows[query][key] = weight; });
    return rows;
  }

  // ---- The mosaic ----

  // Heads in the order shown; those without the number that orders them come last.
  function ordered() {
    if (order < 0) return all;
    const score = spec.scores[order];
    const sign = score.least ? 1 : -1;
    const value = (one) => scoreOf(score, one) ?? -sign * -Infinity;
    return [...all].sort((one, two) => sign * (value(one) - value(two)) || indexOf(one) - indexOf(two));
  }

  // Where each head's tile is. By layer: last layer on top, a wider gap between heads with different keys and values.
  function arrange() {
    const room = Math.min(node.clientWidth, node.clientWidth < 700 ? Infinity : node.clientWidth * 0.45);
    const byLayer = order < 0;
    const gutter = byLayer ? 30 : 0;
    const gap = (column) => 1 + (spec.kv[column] !== spec.kv[column - 1] ? 3 : 0);
    const gaps = byLayer ? spec.heads.reduce((sum, _, column) => sum + gap(column), 0) : spec.heads.length;
    const fits = Math.floor((room - gutter - gaps) / spec.heads.length);
    const tile = Math.max(smallestTile, Math.min(largestTile, fits, Math.floor(720 / spec.layers.length)));
    const columns = byLayer ? spec.heads.length : Math.max(spec.heads.length, Math.min(all.length, Math.floor(Math.min(room, 300) / (tile + 1))));
    places = ordered().map((one, place) => {
      const line = byLayer ? spec.layers.length - 1 - one.row : Math.floor(place / columns);
      const column = byLayer ? one.column : place % columns;
      const before = byLayer ? spec.heads.slice(0, column + 1).reduce((sum, _, index) => sum + gap(index), 0) : column + 1;
      return { ...one, line, column, one, x: gutter + column * tile + before, y: (byLayer ? 18 : 2) + line * (tile + 1) };
    });
    const last = (side) => Math.max(...places.map((place) => place[side])) + tile + 3;
    return { tile, gutter, width: last("x"), height: last("y"), byLayer };
  }

  function paint() {
    const { tile, gutter, width, height, byLayer } = arrange();
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.tile = tile;
    const pen = canvas.getContext("2d");
    const side = Math.round(tile * scale);
    for (const place of places) pen.putImageData(tileOf(place.one, side, pen), Math.round(place.x * scale), Math.round(place.y * scale));
    pen.scale(scale, scale);
    if (byLayer) paintLabels(pen, tile, gutter);
    const now = places.find(({ one }) => one === chosen());
    if (!now) return;
    for (const [line, colour] of [[4, "#000"], [2, "#fff"]]) {
      pen.lineWidth = line;
      pen.strokeStyle = colour;
      pen.strokeRect(now.x, now.y, tile, tile);
    }
  }

  function paintLabels(pen, tile, gutter) {
    const style = getComputedStyle(node);
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--soft").trim();
    pen.font = `11px ${style.fontFamily}`;
    pen.textBaseline = "middle";
    const every = Math.ceil(15 / tile);
    for (const { one, x, y } of places) {
      pen.textAlign = "right";
      // A layer with a sliding window has a wave before its number.
      if (one.column === 0 && one.row % every === 0) pen.fillText(`${spec.windows[one.row] === null ? "" : "~"}${one.layer}`, gutter - 5, y + tile / 2);
      pen.textAlign = "center";
      if (one.row === spec.layers.length - 1 && one.column % every === 0) pen.fillText(one.head, x + tile / 2, 8);
    }
  }

  // One head as an image: the greatest weight in each area, from 0 to 1, or to the head's own greatest where weighted.
  const tiles = new Map();
  function tileOf(one, side, pen) {
    const name = `${indexOf(one)} ${side} ${weighted}`;
    if (!tiles.has(name)) tiles.set(name, paintTile(one, side, pen));
    return tiles.get(name);
  }

  function paintTile(one, side, pen) {
    const cells = Math.min(count, side);
    const most = new Float32Array(cells * cells);
    visitPairs(one, (query, key, weight) => {
      const cell = Math.floor((query * cells) / count) * cells + Math.floor((key * cells) / count);
      if (weight > most[cell]) most[cell] = weight;
    });
    const top = weighted ? most.reduce((high, value) => Math.max(high, value), 0) || 1 : 1;
    const image = pen.createImageData(side, side);
    for (let y = 0; y < side; y++) {
      const query = Math.floor((y * cells) / side);
      for (let x = 0; x < side; x++) {
        const key = Math.floor((x * cells) / side);
        if (key > query) continue;
        image.data.set([...colourOf(Math.min(most[query * cells + key] / top, 1)), 255], 4 * (y * side + x));
      }
    }
    return image;
  }

  function colourOf(part) {
    const high = Math.max(1, stops.findIndex(([end]) => end >= part));
    const [[from, low], [to, up]] = [stops[high - 1], stops[high]];
    return low.map((value, index) => value + ((part - from) / (to - from)) * (up[index] - value));
  }

  // ---- What is said about a head ----

  function sentence(one) {
    const group = spec.heads.filter((_, column) => spec.kv[column] === spec.kv[one.column]);
    const shared = group.length > 1 ? `reads key/value head ${spec.kv[one.column]} as do ${group.filter((head) => head !== one.head).map((head) => `H${head}`).join(", ")}` : `reads key/value head ${spec.kv[one.column]}`;
    const window = spec.windows[one.row];
    const reach = window === null ? "sees every earlier token" : `sees a window of ${window} tokens`;
    const scores = spec.scores.map((score) => `${score.label.toLowerCase()} ${tools.number(scoreOf(score, one))}`);
    return `${nameOf(one)} ${reach}, ${shared}; ${scores.join(", ")}.`;
  }

  function say(one) {
    const held = `L${spec.layers[0]} to L${spec.layers.at(-1)}, heads ${spec.heads.join(", ")}`;
    where.textContent = one ? sentence(one) : `L${selection.layer}H${selection.head} is not among the heads here: ${held}.`;
  }

  // ---- The selected head ----

  async function drawDetail() {
    const one = chosen();
    const empty = Array.from({ length: count }, () => new Array(count).fill(null));
    const z = one ? patternOf(one) : empty;
    const [base] = spec.detail.data;
    const title = weighted ? "norm of what is written" : base.colorbar.title.text;
    const trace = { ...base, z, colorbar: { ...base.colorbar, title: { ...base.colorbar.title, text: title } } };
    if (weighted) trace.zmax = Math.max(...z.map((row) => Math.max(...row.map((value) => value ?? 0)))) || 1;
    trace.hovertemplate = `${count <= namedCells ? "%{hovertext}" : "query %{y}, key %{x}"}<br>%{z:.3~g}<extra></extra>`;
    if (count <= namedCells) trace.hovertext = cellNames();
    const { yaxis } = spec.detail.layout;
    const layout = { ...spec.detail.layout, yaxis: tools.thinned({ ...yaxis, tickangle: 0 }, spec.detail.layout.height - 110) };
    const figure = tools.themed({ data: [trace], layout }, plot.clientWidth);
    figure.layout.shapes = marks();
    const first = !view.drawn;
    view.drawn = true;
    await Plotly.react(plot, figure.data, figure.layout, tools.modeBar);
    if (first) plot.on("plotly_click", (event) => tools.select(spec.prompt, { pos: Math.round(event.points[0].y) }));
    plot.style.minHeight = "";
    plot.dataset.drawn = "true";
    showStrip(z[selection.tokens[spec.prompt]], trace.zmax);
  }

  function cellNames() {
    const names = labels.map((label, pos) => `${tools.short(label, 24)} (${positions[pos]})`);
    hovertext = hovertext || names.map((query) => names.map((key) => `${query} to ${key}`));
    return hovertext;
  }

  // The row of the selected query.
  function marks() {
    const pos = selection.tokens[spec.prompt];
    const lines = [{ color: "#000", width: 3 }, { color: "#fff", width: 1.5 }];
    return lines.map((line) => ({ type: "rect", line, x0: -0.5, x1: pos + 0.5, y0: pos - 0.5, y1: pos + 0.5 }));
  }

  // Each token as deep in colour as the selected query looks at it; the second line says how much.
  function showStrip(row, most) {
    [...strip.children].forEach((button, pos) => {
      const weight = row[pos];
      const part = weight === null ? 0 : Math.round((100 * weight) / most);
      button.style.background = part ? `color-mix(in srgb, var(--mark-line) ${part}%, transparent)` : "";
      button.classList.toggle("unseen", weight === null);
      button.querySelector("small").textContent = weight === null ? "–" : weighted ? tools.number(Number(weight.toPrecision(2))) : weight.toFixed(2);
    });
  }

  // ---- Controls ----

  function buildControls() {
    const holder = node.querySelector(".switch");
    const menu = tools.make("select");
    menu.setAttribute("aria-label", "Order of the heads");
    menu.append(new Option("By layer", -1), ...spec.scores.map((score, index) => new Option(`By ${score.label.toLowerCase()}, ${score.least ? "least" : "most"} first`, index)));
    menu.addEventListener("change", () => {
      order = Number(menu.value);
      paint();
      fillTable();
    });
    holder.append(menu);
    if (spec.norms) ["Attention", "Times what would be written"].forEach((label, index) => holder.append(weightingButton(label, index === 1, holder)));
    canvas.addEventListener("click", (event) => choose(placeAt(event)));
    canvas.addEventListener("mousemove", (event) => say((placeAt(event) || { one: chosen() }).one));
    canvas.addEventListener("mouseleave", () => say(chosen()));
    canvas.addEventListener("keydown", onKey);
    details.addEventListener("toggle", fillTable);
  }

  function weightingButton(label, on, holder) {
    const button = tools.make("button", label);
    button.type = "button";
    button.setAttribute("aria-pressed", on === weighted);
    button.addEventListener("click", () => {
      for (const other of holder.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
      weighted = on;
      draw();
    });
    return button;
  }

  function placeAt({ offsetX, offsetY }) {
    return places.find(({ x, y }) => offsetX >= x && offsetX <= x + canvas.tile && offsetY >= y && offsetY <= y + canvas.tile);
  }

  const choose = (place) => place && tools.select(spec.prompt, { layer: place.one.layer, head: place.one.head });

  // Arrow keys go to the next tile as it is shown, Home and End to the first and the last.
  function onKey(event) {
    const now = places.find(({ one }) => one === chosen()) || places[0];
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const ends = { Home: places[0], End: places.at(-1) };
    if (!step && !ends[event.key]) return;
    event.preventDefault();
    choose(step ? places.find(({ line, column }) => line === now.line + step[0] && column === now.column + step[1]) : ends[event.key]);
  }

  function fillTable() {
    if (!details.open) return;
    const columns = ["head", "key/value head", "sees", ...spec.scores.map((score) => score.label)];
    const rows = ordered().map((one) => [
      nameOf(one), String(spec.kv[one.column]), spec.windows[one.row] === null ? "all before" : `${spec.windows[one.row]} tokens`,
      ...spec.scores.map((score) => tools.number(scoreOf(score, one))),
    ]);
    details.querySelector(".scroll").replaceChildren(tools.tableFrom({ columns, rows }));
  }

  // ---- What the page calls ----

  async function draw() {
    bytes = bytes || (await pageData.bytes(`blob${spec.blob}`));
    paint();
    say(chosen());
    await drawDetail();
  }

  const update = () => (view.drawn ? draw() : undefined);

  buildControls();
  return { draw, update };
};
