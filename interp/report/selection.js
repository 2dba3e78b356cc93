// The one selection of the page: a layer, a head, and a token of each prompt. What shows it asks here and is told of every change.
const selection = (() => {
  const now = { layer: 0, head: 0, tokens: {} };
  const last = { layer: 0, head: 0 };
  const followers = [];
  let prompts = {};
  let active = null;

  const keys = () => Object.keys(prompts);
  const count = (prompt) => prompts[prompt].labels.length;

  // The tokens of a prompt, each with its position.
  const named = (prompt) => prompts[prompt].labels.map((label, pos) => `${prompts[prompt].positions[pos]} ${label}`);

  const within = (value, most) => Math.min(Math.max(value, 0), most);

  // Chooses any of a token of a prompt, a layer and a head, the nearest there is; says whether that changed anything.
  // Tokens of other prompts that belong to the chosen one go with it, but for those of the prompts ``alone``.
  function choose(prompt, { pos, layer, head }, alone = []) {
    const before = JSON.stringify(now) + active;
    if (pos !== undefined && prompts[prompt]) {
      now.tokens[prompt] = within(pos, count(prompt) - 1);
      active = prompt;
      chooseAlike(prompt, alone);
    }
    if (layer !== undefined) now.layer = within(layer, last.layer);
    if (head !== undefined) now.head = within(head, last.head);
    if (JSON.stringify(now) + active === before) return false;
    followers.forEach((follow) => follow());
    return true;
  }

  // The place of the token in another prompt that stands beside one: the same token where both are of one text, else what a comparison
  // puts there; undefined for none.
  function beside(prompt, other) {
    const pos = now.tokens[prompt];
    const pairs = (prompts[prompt].pairs || {})[other] || ((prompts[other].pairs || {})[prompt] || []).map(([one, two]) => [two, one]);
    const place = prompts[other].text === prompts[prompt].text ? prompts[other].positions.indexOf(prompts[prompt].positions[pos]) : -1;
    return place >= 0 ? place : (pairs.find(([own]) => own === pos) || [])[1];
  }

  function chooseAlike(prompt, alone) {
    for (const other of keys()) {
      const place = other === prompt || alone.includes(other) ? undefined : beside(prompt, other);
      if (place !== undefined) now.tokens[other] = place;
    }
  }

  // Steps from what is chosen; a token of the prompt that was chosen from last.
  function step({ pos = 0, layer = 0, head = 0 }) {
    choose(active, { pos: pos && active ? now.tokens[active] + pos : undefined, layer: now.layer + layer, head: now.head + head });
  }

  // Whether the places of an axis can be chosen; other axes only have names.
  const selects = (axis) => Boolean(axis) && ["token", "pair", "layer", "head"].includes(axis.of);

  // Which places of an axis belong to what is chosen.
  function places(axis, prompt) {
    if (!selects(axis)) return [];
    if (axis.of === "token") return [now.tokens[prompt]];
    if (axis.of === "pair") return axis.pairs.flatMap((pair, place) => (pair && axis.prompts.every((key, side) => pair[side] === now.tokens[key]) ? [place] : []));
    if (axis.of === "layer") return axis.layers.flatMap((layer, place) => (layer === now.layer ? [place] : []));
    const chosen = (place) => !axis.layers.length || axis.layers[place] === now.layer;
    return axis.heads.flatMap((head, place) => (head === now.head && chosen(place) ? [place] : []));
  }

  // Chooses what the places on the axes of a picture or table stand for.
  function choosePlaces(prompt, pairs) {
    const change = {};
    for (const [axis, value] of pairs) {
      if (!selects(axis) || value === undefined) continue;
      const place = Math.round(value);
      const known = (list) => (list[place] === null ? undefined : list[place]);
      if (axis.of === "token") change.pos = place;
      if (axis.of === "pair") [change.pos] = axis.pairs[place] || [];
      if (axis.of === "head") change.head = known(axis.heads);
      if (["layer", "head"].includes(axis.of) && known(axis.layers) !== undefined) change.layer = axis.layers[place];
    }
    choose(prompt, change);
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
    return Math.max(0, ...axesOf(spec).flatMap((axis) => axis.heads || []).map((head) => (head ?? -1) + 1));
  }

  // Opens on the last layer and token, unless every picture of a prompt names others to start with.
  function start(ofPage, specs) {
    prompts = ofPage;
    const layers = specs.flatMap((spec) => (spec.layers ? spec.layers : axesOf(spec).flatMap((axis) => axis.layers || [])));
    last.layer = now.layer = Math.max(0, ...layers.filter((layer) => layer !== null));
    last.head = Math.max(0, ...specs.map(headsOf), 1) - 1;
    last.heads = specs.some((spec) => headsOf(spec) > 0);
    last.layers = layers.length > 0;
    // With nothing but heads on the page there is no layer to end on: it opens on a head worth looking at.
    if (specs.length && specs.every(({ type }) => type === "heads")) [now.layer, now.head] = specs[0].start;
    for (const key of keys()) {
      now.tokens[key] = count(key) - 1;
      const pictures = specs.filter(({ type, prompt }) => type === "picture" && prompt === key);
      if (pictures.length && pictures.every((spec) => spec.start)) [now.layer, now.tokens[key]] = pictures[0].start;
    }
    [active = null] = keys();
  }

  return {
    now, last, start, keys, count, named, selects, places, choose, choosePlaces, step,
    prompt: (key) => prompts[key],
    active: () => active,
    follow: (action) => followers.push(action),
  };
})();
