// The page's start: reads the data, makes the views, and lets them follow the selection, the theme, the window and the paper.
(() => {
  const { byId } = writing;
  const views = [];
  const drawn = () => views.filter((view) => view.drawn);
  let waiting = [];
  let asked = 0;

  function collectViews(nodes, blocks) {
    for (const node of nodes) {
      const spec = blocks[Number(node.dataset.block)];
      const view = { node, spec, choice: 0, drawn: false, plot: node.querySelector(".plot"), details: node.querySelector("details") };
      views.push(view);
      if (spec.type === "picture") pictures.build(view);
      if (spec.type === "heads") headsView(view);
    }
  }

  // ---- Following the selection ----

  function inSight({ node }) {
    const { top, bottom } = node.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  }

  // Pictures in sight change with the next frame, the others one after the other when the browser has time; what is chosen
  // meanwhile starts this anew.
  function follow() {
    controls.show();
    for (const view of views) if (view.spec.type === "linked") tables.fillLinked(view);
    sayLater();
    waiting = drawn();
    if (!asked) asked = requestAnimationFrame(updateSeen);
  }

  function updateSeen() {
    asked = 0;
    const seen = waiting.filter(inSight);
    waiting = waiting.filter((view) => !seen.includes(view));
    seen.forEach((view) => view.update());
    setTimeout(updateNext);
  }

  function updateNext() {
    if (asked || !waiting.length) return;
    waiting.shift().update();
    setTimeout(updateNext);
  }

  // One sentence for those who hear the page, when the selection has come to rest.
  let saying = 0;
  function sayLater() {
    clearTimeout(saying);
    saying = setTimeout(() => {
      const key = selection.active();
      const { now, last } = selection;
      const token = key ? [`token ${selection.named(key)[now.tokens[key]]}`] : [];
      byId("said").textContent = [...token, ...(last.layers ? [`layer ${now.layer}`] : []), ...(last.heads ? [`head ${now.head}`] : [])].join(", ");
    }, 300);
  }

  function tellMissing(missing) {
    byId("missing").hidden = !missing.length;
    byId("missing").textContent = missing.length ? `The address names what is not on this page: ${missing.join("; ")}.` : "";
  }

  // ---- Drawing ----

  function drawOnce(view) {
    if (view.begun) return undefined;
    view.begun = true;
    return view.draw();
  }

  // What was not seen is drawn as well, one after the other when the browser has time: paper shows all of it.
  function drawNext(plotted) {
    const idle = window.requestIdleCallback || ((action) => setTimeout(action, 200));
    const view = plotted.find((one) => !one.begun);
    if (view) idle(async () => {
      await drawOnce(view);
      drawNext(plotted);
    });
  }

  function drawWhenSeen() {
    const plotted = views.filter((view) => view.draw);
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) drawOnce(plotted.find((one) => one.node === entry.target));
    }, { rootMargin: "600px" });
    for (const view of plotted) seen.observe(view.node);
    // The first one is there before it is scrolled to.
    if (plotted.length) drawOnce(plotted[0]);
    drawNext(plotted);
    const redraw = () => drawn().forEach((view) => view.draw());
    theme.follow(redraw);
    followPaper(plotted, redraw);
    let width = innerWidth;
    let resting = 0;
    addEventListener("resize", () => {
      if (innerWidth === width) return;
      width = innerWidth;
      clearTimeout(resting);
      resting = setTimeout(redraw, 150);
    });
  }

  // On paper everything is drawn, as wide as the paper and in the light colours, and all that is folded is open but for the tables of
  // pictures that stand beside them.
  function followPaper(plotted, redraw) {
    let folded = [];
    addEventListener("beforeprint", () => {
      document.documentElement.classList.add("printing");
      folded = [...document.querySelectorAll("details:not([open])")].filter((node) => !node.closest("[data-block]"));
      folded.forEach((node) => { node.open = true; });
      for (const view of plotted) {
        view.begun = true;
        view.draw();
      }
    });
    addEventListener("afterprint", () => {
      document.documentElement.classList.remove("printing");
      folded.forEach((node) => { node.open = false; });
      redraw();
    });
  }

  async function start() {
    const data = await pageData.read();
    const nodes = [...document.querySelectorAll("[data-block]")];
    selection.start(data.prompts, nodes.map((node) => data.blocks[Number(node.dataset.block)]));
    collectViews(nodes, data.blocks);
    controls.build();
    tables.build();
    theme.build(byId("theme"));
    keyboard.build();
    address.start(tellMissing);
    controls.show();
    for (const view of views) if (view.spec.type === "linked") tables.fillLinked(view);
    selection.follow(follow);
    await packed.run("plotly");
    drawWhenSeen();
  }

  start().catch(showTrouble);
})();
