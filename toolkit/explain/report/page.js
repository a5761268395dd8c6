"use strict";
// Draws the curves that can be hovered. Where it cannot, the pictures and tables of the page stay as they are.
(async () => {
  if (!("DecompressionStream" in window)) return;
  const held = (id) => document.getElementById(id).textContent;
  const packed = Uint8Array.from(atob(held("plotly")), (character) => character.charCodeAt(0));
  const script = document.createElement("script");
  script.textContent = await new Response(
    new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")),
  ).text();
  document.head.append(script); // the page's policy knows it by its hash

  const plot = document.getElementById("plot");
  const { data, layout } = JSON.parse(held("curves"));
  // A finger scrolls the page; a mouse may choose a part of the curves.
  layout.dragmode = matchMedia("(hover: hover)").matches ? "zoom" : false;
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    layout.font = { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily };
    layout.hoverlabel = { bgcolor: colour("--paper"), bordercolor: colour("--line"), font: layout.font };
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      Object.assign(layout[name], { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false });
    }
    return Plotly.react(plot, data, layout, { responsive: true, displayModeBar: false });
  };
  plot.hidden = false;
  await draw();
  document.documentElement.classList.add("drawn");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
