// All heads as one mosaic on a canvas: where each tile lies, which one the pointer is over, and which comes next under an arrow key.
const headMosaic = (spec, canvas, room, patterns) => {
  const { all, indexOf } = patterns;
  const largestTile = 30;
  const smallestTile = 6;
  let places = [];
  let side = 0;

  // Heads in the order of a score (-1: by layer); those without the number that orders them come last.
  function ordered(order) {
    if (order < 0) return all;
    const score = spec.scores[order];
    const sign = score.least ? 1 : -1;
    const values = pageData.matrix(score);
    const value = ({ row, column }) => values[row][column] ?? -sign * -Infinity;
    return [...all].sort((one, two) => sign * (value(one) - value(two)) || indexOf(one) - indexOf(two));
  }

  // Where each head's tile is. By layer: last layer on top, a wider gap between heads with different keys and values.
  function arrange(order) {
    const width = room();
    const widest = width < 700 ? width : width * 0.45;
    const byLayer = order < 0;
    const gutter = byLayer ? 30 : 0;
    let before = 0;
    const gaps = spec.heads.map((_, column) => (before += 1 + (byLayer && spec.kv[column] !== spec.kv[column - 1] ? 3 : 0)));
    const fits = Math.floor((widest - gutter - gaps.at(-1)) / spec.heads.length);
    const tile = Math.max(smallestTile, Math.min(largestTile, fits, Math.floor(720 / spec.layers.length)));
    const columns = byLayer ? spec.heads.length : Math.max(spec.heads.length, Math.min(all.length, Math.floor(Math.min(widest, 300) / (tile + 1))));
    places = ordered(order).map((one, place) => {
      const line = byLayer ? spec.layers.length - 1 - one.row : Math.floor(place / columns);
      const column = byLayer ? one.column : place % columns;
      return { line, column, one, x: gutter + column * tile + (byLayer ? gaps[column] : column + 1), y: (byLayer ? 18 : 2) + line * (tile + 1) };
    });
    const last = (edge) => places.reduce((most, place) => Math.max(most, place[edge]), 0) + tile + 3;
    return { tile, gutter, width: last("x"), height: last("y"), byLayer };
  }

  function paint({ order, weighted, chosen }) {
    const { tile, gutter, width, height, byLayer } = arrange(order);
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.tile = side = tile;
    const pen = canvas.getContext("2d");
    const pixels = Math.round(tile * scale);
    for (const { one, x, y } of places) pen.putImageData(patterns.tile(one, pixels, weighted, pen), Math.round(x * scale), Math.round(y * scale));
    pen.scale(scale, scale);
    if (byLayer) paintLabels(pen, tile, gutter);
    const place = placeOf(chosen);
    if (!place) return;
    for (const [line, color] of [[4, "#000"], [2, "#fff"]]) {
      pen.lineWidth = line;
      pen.strokeStyle = color;
      pen.strokeRect(place.x, place.y, tile, tile);
    }
  }

  function paintLabels(pen, tile, gutter) {
    pen.fillStyle = writing.color("--soft");
    pen.font = `11px ${getComputedStyle(canvas).fontFamily}`;
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

  const placeOf = (one) => places.find((place) => place.one === one);

  function under({ offsetX, offsetY }) {
    const place = places.find(({ x, y }) => offsetX >= x && offsetX <= x + side && offsetY >= y && offsetY <= y + side);
    return place && place.one;
  }

  // Arrow keys go to the next tile as it is shown, Home and End to the first and the last.
  function next(key, chosen) {
    const now = placeOf(chosen) || places[0];
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
    const ends = { Home: places[0], End: places.at(-1) };
    if (!step && !ends[key]) return undefined;
    const place = step ? places.find(({ line, column }) => line === now.line + step[0] && column === now.column + step[1]) : ends[key];
    return (place || now).one;
  }

  return { paint, under, next, ordered };
};
