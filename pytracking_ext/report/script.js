"use strict";

// Tables: a click on a heading sorts by it, numbers by value, missing cells last.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  table.querySelectorAll("th").forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const falling = heading.getAttribute("aria-sort") !== "descending";
      const value = (row) => {
        const text = row.cells[column].textContent;
        const number = parseFloat(text);
        return Number.isNaN(number) || column === 0 ? text : number;
      };
      const rows = [...body.rows].sort((first, second) => {
        const [a, b] = [value(first), value(second)];
        if (a === "-" || b === "-") return (a === "-") - (b === "-");
        const order = typeof a === "number" && typeof b === "number"
          ? a - b : String(a).localeCompare(String(b));
        return falling ? -order : order;
      });
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}

// Films: frames with the boxes of every tracker.
const style = getComputedStyle(document.documentElement);
for (const film of document.querySelectorAll(".film")) {
  const { frames, pictures, tracks } = JSON.parse(film.querySelector("script").textContent);
  const canvas = film.querySelector("canvas");
  const context = canvas.getContext("2d");
  const [button, slider, output] = ["button", "input", "output"].map((tag) => film.querySelector(tag));
  const images = pictures.map((source) => Object.assign(new Image(), { src: source }));
  const draw = async () => {
    const index = Number(slider.value);
    await images[index].decode();
    if (index !== Number(slider.value)) return;
    context.drawImage(images[index], 0, 0);
    tracks.forEach((boxes, track) => {
      if (!boxes[index]) return;
      context.lineWidth = 2;
      context.setLineDash(track === 0 ? [4, 3] : []);
      context.strokeStyle = track === 0 ? "#ffffff" : style.getPropertyValue(`--c${(track - 1) % 8}`);
      context.strokeRect(...boxes[index]);
    });
    output.textContent = `frame ${frames[index]}`;
  };
  let timer = null;
  button.addEventListener("click", () => {
    button.textContent = timer ? "play" : "stop";
    if (timer) {
      clearInterval(timer);
      timer = null;
      return;
    }
    timer = setInterval(() => {
      slider.value = (Number(slider.value) + 1) % frames.length;
      draw();
    }, 250);
  });
  slider.addEventListener("input", draw);
  draw();
}

document.querySelector("#theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
