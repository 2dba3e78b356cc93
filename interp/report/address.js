// What is chosen stands in the page's address, so that a view can be cited: #lens&token=9&layer=27&head=3. Before it the section or entry
// to go to, if any; token2 is a token of the second prompt. Tokens are named by their position in the prompt.
// What else a view shows is named by its number on the page: shows4=2 is the third version of picture 4.
const address = (() => {
  const { now, last } = selection;
  const tokenName = (key) => (selection.keys().indexOf(key) ? `token${selection.keys().indexOf(key) + 1}` : "token");
  const pause = 200;
  const kept = new Map();
  let first = "";
  let waiting = 0;

  // URLSearchParams reads whatever it is given; a percent sign that encodes nothing stays as it is.
  function parts() {
    const [start, ...rest] = location.hash.slice(1).split("&");
    const anchor = start.includes("=") ? "" : start;
    return { anchor, wanted: new URLSearchParams((anchor ? rest : [start, ...rest]).join("&")) };
  }

  function state() {
    const named = selection.keys().map((key) => `${tokenName(key)}=${selection.prompt(key).positions[now.tokens[key]]}`);
    if (last.layers) named.push(`layer=${now.layer}`);
    if (last.heads) named.push(`head=${now.head}`);
    for (const [name, { get }] of kept) if (get()) named.push(`${name}=${get()}`);
    return named.join("&");
  }

  // Chooses what the address names, and says what it names in vain.
  function read() {
    const { wanted } = parts();
    const missing = [];
    const numberOf = (name) => (wanted.has(name) && /^\d{1,9}$/.test(wanted.get(name)) ? Number(wanted.get(name)) : undefined);
    const upTo = (name, most) => {
      const value = numberOf(name);
      if (value !== undefined && value > most) missing.push(`${name} ${value} (there are 0 to ${most})`);
      return value > most ? undefined : value;
    };
    // The first prompt's comes last, so that it is the one that keys go on from. What is named stays where it is named.
    const named = selection.keys().filter((key) => numberOf(tokenName(key)) !== undefined);
    for (const key of selection.keys().reverse()) {
      const value = numberOf(tokenName(key));
      if (value === undefined) continue;
      const pos = selection.prompt(key).positions.indexOf(value);
      if (pos < 0) missing.push(`${tokenName(key)} ${value} (there are ${selection.prompt(key).positions[0]} to ${selection.prompt(key).positions.at(-1)})`);
      else selection.choose(key, { pos }, named);
    }
    selection.choose(null, { layer: upTo("layer", last.layer), head: upTo("head", last.head) });
    for (const [name, { get, set, most }] of kept) {
      const value = upTo(name, most);
      if (value !== undefined && value !== get()) set(value);
    }
    return missing;
  }

  // What a view shows beside the selection, as a number from 0 (what it opens with) to most: it is then part of the address.
  function keep(name, most, get, set) {
    if (most > 0) kept.set(name, { most, get, set });
  }

  const changed = () => writeSoon(sectionInView);

  // The section that is being read: the last one that starts above the middle of the window; none at the top of the page.
  function sectionInView() {
    const above = [...document.querySelectorAll("main > section")].filter((section) => section.getBoundingClientRect().top < innerHeight / 2);
    return scrollY < 50 || !above.length ? "" : above.at(-1).id;
  }

  function write(anchor) {
    const named = state();
    const hash = named === first ? anchor : [anchor, named].filter(Boolean).join("&");
    if (`#${hash}` === (location.hash || "#")) return;
    try {
      history.replaceState({ written: true }, "", hash ? `#${hash}` : "#");
    } catch {
      // Browsers refuse when it is changed too often, or in a page within a page: the address then lags behind.
      return;
    }
  }

  // Key repeat changes the selection many times a second: the address follows when it has come to rest.
  function writeSoon(anchor) {
    clearTimeout(waiting);
    waiting = setTimeout(() => write(anchor()), pause);
  }

  // The browser goes to an address that is an anchor only; to others the page goes itself, but not when going back.
  function arrive() {
    const { anchor, wanted } = parts();
    const target = anchor && document.getElementById(anchor);
    if (target && [...wanted].length && !(history.state && history.state.written)) target.scrollIntoView();
  }

  function start(tell) {
    first = state();
    tell(read());
    arrive();
    selection.follow(changed);
    addEventListener("hashchange", () => {
      tell(read());
      arrive();
      writeSoon(() => parts().anchor);
    });
  }

  return { start, keep, changed };
})();
