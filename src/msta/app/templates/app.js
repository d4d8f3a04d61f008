// Connects the player under #msta-video with the timeline below it.
(() => {
  const player = () => document.querySelector("#msta-video video");
  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-seek]");
    if (at && player()) player().currentTime = Number(at.dataset.seek) + 0.01;
  });
  const follow = (event) => {
    if (event.target !== player()) return;
    const line = document.querySelector(".msta-timeline");
    const now = line?.querySelector(".msta-now");
    if (!now) return;
    now.hidden = false;
    now.style.left = `${Math.min(100, (100 * event.target.currentTime) / Number(line.dataset.duration))}%`;
  };
  // Videos that a browser cannot play, such as AVI, can still be predicted: do not show an error.
  const playable = (is) => (event) => {
    if (event.target !== player()) return;
    if (!is) event.stopImmediatePropagation();
    document.querySelector("#msta-video").classList.toggle("msta-unplayable", !is);
  };
  document.addEventListener("error", playable(false), true);
  document.addEventListener("loadeddata", playable(true), true);
  for (const name of ["timeupdate", "seeking", "seeked"]) document.addEventListener(name, follow, true);
})();
