// The figure that a view shows now: its chosen version, at the selected token, with arrays in place of references, in the page's colours.
const figures = (() => {
  const { safe, short, color } = writing;
  const cellTexts = new Map();

  // A figure with what differs in a version of it; null says that a property is not there.
  function assign(figure, patch) {
    const changed = (base, change = {}) => Object.fromEntries(Object.entries({ ...base, ...change }).filter(([, value]) => value !== null));
    const data = figure.data.map((trace, index) => changed(trace, (patch.data || [])[index]));
    return { data, layout: changed(figure.layout, patch.layout) };
  }

  // What the cells of a map show when hovered: its place, and the best tokens where there are some.
  function hoverTexts({ rows, link, best = [], probs = [] }, prompt) {
    const { labels, positions } = selection.prompt(prompt);
    const tables = probs.map(pageData.matrix);
    const places = labels.map((label, column) => ` ${link} ${short(label, 24)} (${positions[column]})`);
    const probability = (value) => (value === null ? "–" : value.toFixed(3));
    return rows.map((name, row) => places.map((place, column) => {
      const ranked = tables.map((table, rank) => `<br>${probability(table[row][column])}  ${short(pageData.word(best[rank], row, column), 24)}`);
      return `<b>${safe(name)}</b>${place}${ranked.join("")}`;
    }));
  }

  // The texts of a map's cells, made once.
  function textsOf(cells, prompt) {
    const name = JSON.stringify([prompt, cells]);
    if (!cellTexts.has(name)) {
      const [top] = cells.best || [];
      const text = cells.best && cells.rows.map((_, row) => selection.prompt(prompt).labels.map((_, column) => short(pageData.word(top, row, column), 9)));
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

  function current(view) {
    const option = view.spec.options[view.choice];
    let figure = option.whole || assign(view.spec.base, option.patch || {});
    if (option.follow) {
      const pos = selection.now.tokens[view.spec.prompt];
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
    const axis = (options) => ({ ...options, color: color("--soft"), title: { ...(options.title || {}), font: { color: color("--soft"), size: 12 } } });
    const layout = {
      ...figure.layout,
      width,
      font: { ...figure.layout.font, color: color("--ink"), family: getComputedStyle(document.body).fontFamily },
      xaxis: axis(thinned(figure.layout.xaxis, width)),
      yaxis: axis(figure.layout.yaxis),
      hoverlabel: { ...figure.layout.hoverlabel, bgcolor: color("--ground"), bordercolor: color("--line"), font: { color: color("--ink"), size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--soft"), activecolor: color("--accent") },
      dragmode: width < 640 ? false : "zoom",
    };
    return { data: figure.data.map((trace) => (trace.type === "heatmap" ? themedHeatmap(trace, figure, width) : themedWhiskers(trace))), layout };
  }

  // Whiskers are seen on the page's ground and on the bars.
  function themedWhiskers(trace) {
    const whiskers = ["error_x", "error_y"].filter((name) => trace[name]);
    return { ...trace, ...Object.fromEntries(whiskers.map((name) => [name, { ...trace[name], color: color("--ink") }])) };
  }

  function themedHeatmap(trace, figure, width) {
    const shown = { ...trace, colorbar: { ...trace.colorbar, tickfont: { color: color("--soft"), size: 11 }, title: { ...trace.colorbar.title, font: { color: color("--soft"), size: 11.5 } } } };
    if (trace.meta && trace.meta.signed) shown.colorscale = [[0, "#c2410c"], [0.5, color("--raised")], [1, "#0b78b5"]];
    if (width < 560) shown.showscale = figure.data.length > 1;
    const cell = (width - 120) / trace.z[0].length;
    if (trace.texttemplate) {
      // Text must fit its cell: smaller on narrow pages, then gone (hovering and the table still have it).
      const size = Math.min(10.5, cell / 5.4);
      if (size < 7.5) delete shown.texttemplate;
      else shown.textfont = { ...trace.textfont, size };
    }
    if (cell < 6) shown.xgap = shown.ygap = 0;
    return shown;
  }

  return { current, themed, thinned };
})();
