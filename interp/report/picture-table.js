// A picture as a table: what is read in place of it, and its numbers as they are, for a file.
const pictureTable = (() => {
  const { plain, number, valueOf } = writing;
  const titleOf = (axis) => (axis.title && axis.title.text ? plain(axis.title.text) : "");

  // What the places of an axis are called, in the table and, in one or two columns, in a file.
  function names(axis, layoutAxis, prompt) {
    if (axis && axis.of === "token") {
      const { labels, positions } = selection.prompt(prompt);
      const named = selection.named(prompt);
      return { title: "token", columns: ["position", "token"], label: (place) => named[place], values: (place) => [positions[place], labels[place]] };
    }
    if (axis && axis.of === "pair") {
      const [one, two] = axis.prompts;
      const values = (place) => {
        const [first, second] = axis.pairs[place];
        return [axis.labels[place], selection.prompt(one).positions[first], selection.prompt(two).positions[second]];
      };
      return { title: "token", columns: ["token", "position in A", "position in B"], label: (place) => axis.labels[place], values };
    }
    if (axis && axis.of === "head" && axis.layers.length) {
      return { title: "head", columns: ["layer", "head"], label: (place) => axis.labels[place], values: (place) => [axis.layers[place], axis.heads[place]] };
    }
    if (axis && !selection.selects(axis)) {
      return { title: axis.of, columns: [axis.of], label: (place) => axis.labels[place], values: (place) => [axis.labels[place]] };
    }
    if (axis) {
      const values = axis.of === "head" ? axis.heads : axis.layers;
      const label = (place) => axis.labels[place];
      if (axis.labels.every((text, place) => text === String(values[place]))) return { title: axis.of, columns: [axis.of], label, values: (place) => [values[place]] };
      return { title: axis.of, columns: [axis.of, "name"], label, values: (place) => [values[place], axis.labels[place]] };
    }
    const { tickvals = [], ticktext = [] } = layoutAxis;
    const text = new Map(tickvals.map((value, index) => [value, plain(ticktext[index])]));
    const label = (place) => text.get(place) ?? (typeof place === "number" ? number(place) : plain(place));
    return { title: titleOf(layoutAxis) || "row", columns: [titleOf(layoutAxis) || "row"], label, values: (place) => [valueOf(text.get(place) ?? place)] };
  }

  // The places of an axis that hold something: not the gaps between panels.
  const held = (axis, count) => Array.from({ length: count }, (_, place) => place).filter((place) => {
    if (!axis || axis.of === "token" || axis.of === "layer") return true;
    return axis.of === "pair" ? axis.pairs[place] !== null : axis.of === "head" ? axis.heads[place] !== null : axis.labels[place] !== "";
  });

  // The likeliest token of a cell, in full, where a map names it.
  function wordsOf(view) {
    const { cells } = (view.spec.options[view.choice].whole || view.spec.base).data[0];
    return cells && cells.best ? (row, column) => pageData.word(cells.best[0], row, column) : null;
  }

  function ofMap(view, trace, layout, x, y) {
    const values = trace.meta && (trace.meta.log || trace.meta.whole) ? trace.customdata : trace.z;
    const across = names(x, layout.xaxis, view.spec.prompt);
    const down = names(y, layout.yaxis, view.spec.prompt);
    const likeliest = wordsOf(view);
    const word = likeliest || (trace.texttemplate && trace.text ? (row, column) => plain(trace.text[row][column]) : null);
    const wordColumn = word ? [likeliest ? "top token" : "text"] : [];
    const shown = (value, row, column) => (word ? `${word(row, column)} ${number(value)}` : number(value));
    const places = values.map((_, row) => row);
    const [first, last] = layout.yaxis.range || [0, 1];
    if (first < last) places.reverse();
    const columns = held(x, values[0].length);
    const what = plain(trace.colorbar && trace.colorbar.title ? trace.colorbar.title.text : "value");
    return {
      columns: [down.title, ...columns.map(across.label)],
      rows: places.map((row) => [down.label(row), ...columns.map((column) => shown(values[row][column], row, column))]),
      rowPlaces: places,
      columnPlaces: columns,
      data: () => ({
        columns: [...down.columns, ...across.columns, ...wordColumn, what],
        rows: values.flatMap((line, row) => columns.map((column) => [...down.values(row), ...across.values(column), ...(word ? [word(row, column)] : []), line[column]])),
      }),
    };
  }

  // The columns that a trace of bars or lines fills: its values and, where it has whiskers, their ends.
  function columnsOf(trace, flat, layout) {
    const unit = titleOf(flat ? layout.xaxis : layout.yaxis);
    const log = trace.type === "scatter" && layout.yaxis.type === "log" && trace.customdata;
    const values = [...(log ? trace.customdata : flat ? trace.x : trace.y)];
    const name = trace.name ? plain(trace.name) : unit || "value";
    const { array, arrayminus, visible } = (flat ? trace.error_x : trace.error_y) || {};
    if (!array || visible === false) return [{ name, values }];
    const reach = (sign, lengths) => values.map((value, index) => (value === null || lengths[index] === null ? null : value + sign * lengths[index]));
    return [{ name, values }, { name: `${name}, lower`, values: reach(-1, arrayminus || array) }, { name: `${name}, upper`, values: reach(1, array) }];
  }

  function ofSeries(view, figure, x, y) {
    const { layout } = figure;
    const flat = figure.data[0].orientation === "h";
    const index = names(flat ? y : x, flat ? layout.yaxis : layout.xaxis, view.spec.prompt);
    const parts = figure.data.map((trace) => {
      const along = flat ? trace.y : trace.x;
      const columns = columnsOf(trace, flat, layout);
      return { trace, columns, places: along ? [...along] : columns[0].values.map((_, place) => place) };
    });
    const alike = parts.every(({ places }) => places.join() === parts[0].places.join());
    if (!alike) return ofLoose(parts, index, layout);
    const columns = parts.flatMap((part) => part.columns);
    const { places } = parts[0];
    return {
      columns: [index.title, ...columns.map(({ name }) => name)],
      rows: places.map((place, row) => [index.label(place), ...columns.map(({ values }) => number(values[row]))]),
      rowPlaces: places,
      down: flat ? y : x,
      data: () => ({
        columns: [...index.columns, ...columns.map(({ name }) => name)],
        rows: places.map((place, row) => [...index.values(place), ...columns.map(({ values }) => values[row])]),
      }),
    };
  }

  // Series that are not measured at the same places: one below the other.
  function ofLoose(parts, index, layout) {
    const unit = titleOf(layout.yaxis) || "value";
    const lines = (write) => parts.flatMap(({ trace, columns, places }) => places.map((place, row) => [plain(trace.name || ""), ...write(place, columns[0].values[row])]));
    return {
      columns: ["series", index.title, unit],
      rows: lines((place, value) => [index.label(place), number(value)]),
      data: () => ({ columns: ["series", ...index.columns, unit], rows: lines((place, value) => [...index.values(place), value]) }),
    };
  }

  // { columns, rows, data }, and the places on the picture's axes that rows and columns stand for.
  function of(view) {
    const figure = figures.current(view);
    const { x, y } = view.spec.options[view.choice];
    const [trace] = figure.data;
    const { prompt } = view.spec;
    if (trace.type === "heatmap") return { prompt, down: y, across: x, ...ofMap(view, trace, figure.layout, x, y) };
    return { prompt, ...ofSeries(view, figure, x, y) };
  }

  return { of };
})();
