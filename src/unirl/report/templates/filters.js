"use strict";
// Each select of a form narrows the items of one list down; a group whose items are all hidden is hidden, too.
for (const form of document.querySelectorAll("form.filters")) {
  const output = form.querySelector("output");
  const items = [...document.querySelectorAll(`[data-item="${output.dataset.count}"]`)];
  const groups = [...document.querySelectorAll(`[data-group="${output.dataset.count}"]`)];
  const selects = [...form.querySelectorAll("select")];
  const apply = () => {
    let visible = 0;
    for (const item of items) {
      const fits = selects.every((select) => !select.value || item.dataset[select.dataset.filter] === select.value);
      item.hidden = !fits;
      visible += fits;
    }
    for (const group of groups) {
      group.hidden = !group.querySelector("[data-item]:not([hidden])");
    }
    output.value = `${visible} of ${items.length} ${output.dataset.what}`;
  };
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
// Images of few pixels are shown with sharp edges.
for (const image of document.querySelectorAll("figure img")) {
  const sharpen = () => image.classList.toggle("pixels", image.naturalWidth < 100);
  image.complete ? sharpen() : image.addEventListener("load", sharpen);
}
