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
  // A moment that was found: its number goes into a hidden field, which the server answers with a video.
  const pickMoment = (event) => {
    const figure = event.target.closest?.("[data-moment]");
    const field = document.querySelector("#msta-moment textarea, #msta-moment input");
    if (!figure || !field || (event.type === "keydown" && event.key !== "Enter")) return;
    field.value = `${figure.dataset.moment} ${Date.now()}`; // another value each time
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  for (const name of ["click", "keydown"]) document.addEventListener(name, pickMoment);
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
