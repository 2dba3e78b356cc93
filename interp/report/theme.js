// Light or dark: as the system says, or as the reader chose. It is set before the page is seen.
const theme = (() => {
  const root = document.documentElement;
  const names = ["light", "dark"];
  const followers = [];

  // A page opened from a disk may have no storage: then the choice holds until it is closed.
  function kept() {
    try {
      return localStorage.getItem("interp-theme");
    } catch {
      return null;
    }
  }

  function keep(name) {
    try {
      if (names.includes(name)) localStorage.setItem("interp-theme", name);
      else localStorage.removeItem("interp-theme");
    } catch {
      return;
    }
  }

  function show(name) {
    if (names.includes(name)) root.dataset.theme = name;
    else delete root.dataset.theme;
  }

  // The menu that chooses; whoever draws in colours is told of every change, the system's too.
  function build(menu) {
    menu.value = root.dataset.theme || "system";
    menu.addEventListener("change", () => {
      show(menu.value);
      keep(menu.value);
      followers.forEach((follow) => follow());
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => followers.forEach((follow) => follow()));
    menu.parentElement.hidden = false;
  }

  show(kept());
  return { build, follow: (action) => followers.push(action) };
})();
