// Viewers as the tests want them: `bench` is what they drive.

import { createLegend } from "/web/viewer/legend.js";
import { rasterOf } from "/web/viewer/raster.js";
import { createToolbar, createViewer, link, shortcuts } from "/web/viewer/viewer.js";

const main = document.querySelector("main");

window.bench = {
  viewers: [],
  shortcuts,
  link,

  /** A viewer of `width` x `height` CSS pixels. */
  add(left, top, width, height, name = "L CC 2024-01-31") {
    const host = document.createElement("figure");
    host.className = "host";
    const size = { left, top, width, height };
    for (const [side, pixels] of Object.entries(size)) host.style[side] = `${pixels}px`;
    host.style.margin = "0";
    main.append(host);
    this.viewers.push(createViewer(host, { name }));
    return new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  },

  async show(viewer, header, path) {
    const buffer = await (await fetch(path)).arrayBuffer();
    this.viewers[viewer].show(rasterOf({ header, buffer }));
  },

  toolbar() {
    main.prepend(createToolbar(this.viewers));
  },

  legend(heatmap) {
    main.append(createLegend(heatmap));
  },

  /** What is on the canvas of a viewer once all is drawn. */
  async seen(viewer) {
    await this.viewers[viewer].toBlob();
    return this.canvas(viewer);
  },

  /** What is on it now: base64 of red, green, blue, alpha. */
  canvas(viewer) {
    const canvas = this.viewers[viewer].element.querySelector("canvas");
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    let text = "";
    for (let place = 0; place < data.length; place += 32768) {
      text += String.fromCharCode(...data.subarray(place, place + 32768));
    }
    return { width, height, data: btoa(text) };
  },
};
window.isReady = true;
