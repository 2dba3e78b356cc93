// What the selection is made with: the bar at the foot of the page, the strips of tokens, and the search for a token.
const controls = (() => {
  const { byId, make, button, chip } = writing;
  const { now, last } = selection;
  const shownAtOnce = 60;

  // ---- The bar ----

  function buildMenu(menu) {
    const keys = selection.keys();
    for (const key of keys) {
      const group = keys.length > 1 ? make("optgroup") : menu;
      if (group !== menu) {
        group.label = selection.prompt(key).name;
        menu.append(group);
      }
      selection.named(key).forEach((name, pos) => group.append(new Option(name, `${key}:${pos}`)));
    }
    menu.addEventListener("change", () => {
      const [key, pos] = menu.value.split(":");
      selection.choose(key, { pos: Number(pos) });
    });
    menu.parentElement.hidden = keys.length === 0;
    byId("open-find").hidden = keys.length === 0;
  }

  function buildSlider(id, most, name, has) {
    const slider = byId(id);
    slider.max = most;
    slider.addEventListener("input", () => selection.choose(null, { [name]: Number(slider.value) }));
    slider.parentElement.hidden = !has;
  }

  function showBar() {
    const key = selection.active();
    if (key) byId("select-token").value = `${key}:${now.tokens[key]}`;
    byId("select-layer").value = now.layer;
    byId("shown-layer").textContent = now.layer;
    byId("select-head").value = now.head;
    byId("shown-head").textContent = now.head;
  }

  // ---- Strips of tokens ----

  // Of a strip only the selected token is reached with Tab; the arrow keys go on from it.
  function buildStrip(strip) {
    const { labels, ids } = selection.prompt(strip.dataset.prompt);
    strip.append(...labels.map((label, pos) => {
      const one = button(undefined, () => selection.choose(strip.dataset.prompt, { pos }), "pick");
      one.append(chip(label), make("small", String(ids[pos])));
      one.setAttribute("aria-pressed", false);
      one.tabIndex = -1;
      return one;
    }));
  }

  function showStrip(strip) {
    const before = strip.querySelector("[aria-pressed='true']");
    const one = strip.children[now.tokens[strip.dataset.prompt]];
    if (before === one) return;
    if (before) {
      before.setAttribute("aria-pressed", false);
      before.tabIndex = -1;
    }
    one.setAttribute("aria-pressed", true);
    one.tabIndex = 0;
    if (before && document.activeElement === before) one.focus({ preventScroll: true });
    tables.showWithin(strip, one);
  }

  // ---- Finding a token ----

  // Spaces are shown as ␣ at the edges of tokens: both spellings find them.
  const spelt = (text) => text.toLowerCase().replaceAll("␣", " ");

  function found(text) {
    const wanted = spelt(text);
    const all = selection.keys().flatMap((key) => selection.prompt(key).labels.map((label, pos) => ({ key, pos, label, position: selection.prompt(key).positions[pos] })));
    if (!wanted) return all;
    return all.filter(({ label, position }) => spelt(label).includes(wanted) || String(position) === wanted);
  }

  function take({ key, pos }) {
    byId("find").close();
    selection.choose(key, { pos });
  }

  function showFound() {
    const all = found(byId("find-text").value);
    const several = selection.keys().length > 1;
    byId("found").replaceChildren(...all.slice(0, shownAtOnce).map((one) => {
      const item = make("li");
      const pick = button(undefined, () => take(one));
      pick.append(make("small", `${several ? `${selection.prompt(one.key).name}, ` : ""}${one.position} `), chip(one.label));
      item.append(pick);
      return item;
    }));
    const count = all.length === 1 ? "1 token" : `${all.length} tokens`;
    byId("find-count").textContent = all.length > shownAtOnce ? `${count}, the first ${shownAtOnce} shown` : count;
  }

  function openFind() {
    byId("find-text").value = "";
    showFound();
    byId("find").showModal();
  }

  // Enter takes the first; up and down go through the list.
  function onFindKey(event) {
    const items = [...byId("found").querySelectorAll("button")];
    const at = items.indexOf(document.activeElement);
    if (event.key === "Enter" && at < 0 && items.length) items[0].click();
    else if (event.key === "ArrowDown" && items.length) items[Math.min(at + 1, items.length - 1)].focus();
    else if (event.key === "ArrowUp") (items[at - 1] || byId("find-text")).focus();
    else return;
    event.preventDefault();
  }

  function build() {
    buildMenu(byId("select-token"));
    buildSlider("select-layer", last.layer, "layer", last.layers);
    buildSlider("select-head", last.head, "head", last.heads);
    document.querySelectorAll(".strip").forEach(buildStrip);
    byId("selection").hidden = selection.keys().length === 0 && !last.heads && !last.layers;
    byId("open-find").addEventListener("click", openFind);
    byId("find-text").addEventListener("input", showFound);
    byId("find").addEventListener("keydown", onFindKey);
  }

  function show() {
    showBar();
    document.querySelectorAll(".strip").forEach(showStrip);
    tables.markWritten();
  }

  return { build, show, openFind };
})();
