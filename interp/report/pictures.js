// Pictures: drawn when they come into view, redrawn or marked when the selection changes, with a switch between their versions.
const pictures = (() => {
  const { make, button, color } = writing;
  // Where black and white on Viridis have the same contrast (luminance 0.18).
  const viridisMiddle = 0.47;

  const modeBar = {
    displaylogo: false,
    displayModeBar: innerWidth < 640 ? false : "hover",
    // Only these: the default bar can send the chart to a cloud service.
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
  };

  const shown = (view) => view.spec.options[view.choice];

  // Marks of what is selected: a frame around a cell, or a band across the picture.
  function shapes(view) {
    const { x, y } = shown(view);
    const columns = selection.places(x, view.spec.prompt);
    const rows = selection.places(y, view.spec.prompt);
    if (selection.selects(x) && selection.selects(y)) {
      // Black around white is seen on any colour of the scale.
      const lines = [{ color: "#000", width: 4 }, { color: "#fff", width: 2 }];
      return columns.flatMap((column) => rows.flatMap((row) => lines.map((line) => ({ type: "rect", line, x0: column - 0.5, x1: column + 0.5, y0: row - 0.5, y1: row + 0.5 }))));
    }
    const band = { type: "rect", layer: "below", line: { width: 0 }, fillcolor: color("--mark-line"), opacity: 0.16 };
    return [
      ...columns.map((column) => ({ ...band, yref: "paper", x0: column - 0.5, x1: column + 0.5, y0: 0, y1: 1 })),
      ...rows.map((row) => ({ ...band, xref: "paper", x0: 0, x1: 1, y0: row - 0.5, y1: row + 0.5 })),
    ];
  }

  async function draw(view) {
    const figure = figures.themed(figures.current(view), view.plot.clientWidth);
    figure.layout.shapes = shapes(view);
    const first = !view.drawn;
    view.drawn = true;
    await Plotly.react(view.plot, figure.data, figure.layout, modeBar);
    if (first) view.plot.on("plotly_click", ({ points: [{ x, y }] }) => selection.choosePlaces(view.spec.prompt, [[shown(view).x, x], [shown(view).y, y]]));
    if (first) view.plot.on("plotly_afterplot", () => inkCells(view.plot));
    inkCells(view.plot);
    view.plot.style.minHeight = "";
    view.plot.dataset.drawn = "true";
    if (view.details.open) fillTable(view);
  }

  // After a change of the selection: marks only, where the picture itself stays the same.
  function update(view) {
    if (shown(view).follow) return draw(view);
    if (view.details.open) tables.mark(view.details.querySelector("table"));
    return Plotly.relayout(view.plot, { shapes: shapes(view) });
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

  const fillTable = (view) => tables.fill(view.details, pictureTable.of(view));

  // What is not drawn yet will be, as it is chosen then.
  function choose(view, index) {
    view.choice = index;
    view.showChoice();
    if (view.drawn) draw(view);
  }

  function chooseHere(view, index) {
    choose(view, index);
    address.changed();
  }

  function buildSwitch(view) {
    const holder = view.node.querySelector(".switch");
    const { options } = view.spec;
    view.showChoice = () => {};
    if (options.length < 2) return;
    address.keep(`shows${view.node.dataset.block}`, options.length - 1, () => view.choice, (index) => choose(view, index));
    if (options.length > 5) {
      const menu = make("select");
      menu.setAttribute("aria-label", "What the picture shows");
      options.forEach((option, index) => menu.append(new Option(option.label, index)));
      menu.addEventListener("change", () => chooseHere(view, Number(menu.value)));
      view.showChoice = () => { menu.value = view.choice; };
      holder.append(menu);
      return;
    }
    holder.setAttribute("role", "group");
    holder.setAttribute("aria-label", "What the picture shows");
    options.forEach((option, index) => {
      const one = button(option.label, () => chooseHere(view, index));
      holder.append(one);
    });
    view.showChoice = () => [...holder.children].forEach((one, index) => one.setAttribute("aria-pressed", index === view.choice));
    view.showChoice();
  }

  function build(view) {
    buildSwitch(view);
    view.details.addEventListener("toggle", () => view.details.open && fillTable(view));
    view.draw = () => draw(view);
    view.update = () => update(view);
  }

  return { build, modeBar };
})();
