// A result drawn over its picture: masks, boxes and tags, in the colours of openlepton.draw.

import { owners } from "./masks.js";

const PALETTE = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167], [77, 254, 249],
  [55, 137, 253], [254, 172, 158], [53, 220, 235], [140, 255, 167], [182, 53, 144], [201, 47, 54], [243, 88, 104],
  [55, 209, 108], [53, 103, 222], [26, 149, 216], [73, 162, 254], [34, 237, 209], [252, 133, 173], [181, 213, 25],
  [48, 200, 204], [194, 45, 109],
];
const OPACITY = 115; // of masks, of 255
const CROWD = 30; // more objects than this get smaller tags
const FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif';

const rgb = (label) => PALETTE[label % PALETTE.length];

export const color = (label) => `rgb(${rgb(label).join(" ")})`;

// Returns what is drawn of an answer: rows with label, score, box and colour, best first, and their masks as one layer.
export function scene(answer) {
  const { width, height } = answer.image ?? { width: 0, height: 0 };
  const rows = (answer.detections ?? answer.classes ?? []).map((one) => ({
    label: one.label_id,
    score: one.score,
    share: one.share,
    box: one.box,
    mask: one.mask,
  }));
  const masked = rows.some((row) => row.mask);
  const owner = masked ? owners(rows.map((row) => row.mask), width, height) : null;
  return { width, height, rows, owner, boxed: Boolean(answer.detections), layers: new Map() };
}

// Draws the picture and what was found, `scale` pixels of the canvas for one of the picture.
export function draw(context, picture, seen, { scale, shown, active, name, tags, ratio = 1 }) {
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, Math.round(seen.width * scale), Math.round(seen.height * scale));
  if (seen.owner) {
    context.drawImage(layer(seen, shown, active), 0, 0, Math.round(seen.width * scale), Math.round(seen.height * scale));
  }
  if (!seen.boxed) {
    return;
  }
  const order = seen.rows.map((_, row) => row).filter((row) => shown(seen.rows[row])).reverse(); // the best on top
  if (active !== null && order.includes(active)) {
    order.push(...order.splice(order.indexOf(active), 1));
  }
  const size = (order.length > CROWD ? 10.5 : 12.5) * ratio;
  for (const row of order) {
    context.globalAlpha = active === null || row === active ? 1 : 0.25;
    outline(context, seen.rows[row], scale, (row === active ? 3 : 2) * ratio);
  }
  context.globalAlpha = 1;
  const placed = [];
  const named = active !== null ? order.slice(-1) : tags ? order.reverse() : [];
  for (const row of named) {
    tag(context, seen.rows[row], name(seen.rows[row]), { scale, size, placed });
  }
}

// Returns the row at a point of the picture: by its mask where there is one, else the smallest box around the point.
export function at(seen, x, y, shown) {
  if (x < 0 || y < 0 || x >= seen.width || y >= seen.height) {
    return null;
  }
  const owner = seen.owner?.[Math.floor(y) * seen.width + Math.floor(x)] ?? -1;
  if (owner >= 0 && shown(seen.rows[owner])) {
    return owner;
  }
  let best = null;
  let least = Infinity;
  seen.rows.forEach((row, index) => {
    const box = row.box;
    if (box && shown(row) && x >= box.x1 && x < box.x2 && y >= box.y1 && y < box.y2) {
      const area = (box.x2 - box.x1) * (box.y2 - box.y1);
      if (area < least) {
        [best, least] = [index, area];
      }
    }
  });
  return best;
}

// Returns the masks as a canvas of the picture's size, kept until what is shown changes.
function layer(seen, shown, active) {
  const visible = seen.rows.map((row) => Number(shown(row)));
  const key = `${visible.join("")} ${active}`;
  if (seen.layers.has(key)) {
    return seen.layers.get(key);
  }
  const pixels = new ImageData(seen.width, seen.height);
  const words = new Uint32Array(pixels.data.buffer);
  const paint = seen.rows.map((row, index) => {
    const [red, green, blue] = rgb(row.label);
    const alpha = active === null ? OPACITY : index === active ? OPACITY + 40 : 40;
    return visible[index] ? ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0 : 0;
  });
  for (let place = 0; place < words.length; place += 1) {
    const row = seen.owner[place];
    if (row >= 0) {
      words[place] = paint[row];
    }
  }
  const canvas = new OffscreenCanvas(seen.width, seen.height);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  if (seen.layers.size > 8) {
    seen.layers.clear();
  }
  seen.layers.set(key, canvas);
  return canvas;
}

function outline(context, { box, label }, scale, width) {
  const [x, y] = [box.x1 * scale, box.y1 * scale];
  const [w, h] = [(box.x2 - box.x1) * scale, (box.y2 - box.y1) * scale];
  context.lineJoin = "round";
  context.lineWidth = width + 2;
  context.strokeStyle = "rgb(0 0 0 / 35%)"; // so that the colour is seen on any ground
  context.strokeRect(x, y, w, h);
  context.lineWidth = width;
  context.strokeStyle = color(label);
  context.strokeRect(x, y, w, h);
}

// Writes a name at its box, unless one of something better is there already: pointing at the box tells it then.
function tag(context, { box, label, score }, name, { scale, size, placed }) {
  const text = `${name} ${score.toFixed(2)}`;
  context.font = `600 ${size}px ${FONT}`;
  context.textBaseline = "middle";
  const [pad, height] = [0.45 * size, 1.55 * size];
  const width = context.measureText(text).width + 2 * pad;
  const x = Math.max(0, Math.min(box.x1 * scale - size / 12, context.canvas.width - width));
  const above = box.y1 * scale - height;
  const y = above >= 0 ? above : Math.min(box.y1 * scale, context.canvas.height - height);
  if (placed.some((one) => x < one.x + one.width && one.x < x + width && Math.abs(y - one.y) < height)) {
    return;
  }
  placed.push({ x, y, width });
  context.fillStyle = color(label);
  context.beginPath();
  context.roundRect(x, y, width, height, size / 4);
  context.fill();
  const [red, green, blue] = rgb(label);
  context.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 130 ? "#111" : "#fff";
  context.fillText(text, x + pad, y + height / 2 + size * 0.04);
}
