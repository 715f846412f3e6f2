// Masks as COCO's compressed run lengths: column by column, six bits a letter, differences from the third run on.

// Returns the lengths of the runs of background, object, background and so on.
export function runs(text) {
  const counts = [];
  for (let place = 0; place < text.length; ) {
    let value = 0;
    let shift = 0;
    let bits;
    do {
      bits = text.charCodeAt(place) - 48;
      place += 1;
      value |= (bits & 0x1f) << shift;
      shift += 5;
    } while (bits & 0x20);
    if (bits & 0x10 && shift < 32) {
      value |= -1 << shift;
    }
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
}

// Calls visit(x, y, until) for each piece of a column that shows the object: rows y to until, the last exclusive.
export function columns(mask, visit) {
  const [height] = mask.size;
  let place = 0;
  runs(mask.counts).forEach((length, index) => {
    const end = place + length;
    if (index % 2) {
      while (place < end) {
        const x = Math.floor(place / height);
        const y = place - x * height;
        const until = Math.min(height, y + end - place);
        visit(x, y, until);
        place += until - y;
      }
    }
    place = end;
  });
}

// Returns which row of `masks` each pixel shows, row by row, the first ones on top; -1 where none does.
export function owners(masks, width, height) {
  const found = new Int16Array(width * height).fill(-1);
  for (let row = masks.length - 1; row >= 0; row -= 1) {
    if (masks[row]) {
      columns(masks[row], (x, y, until) => {
        for (let at = y * width + x; y < until; y += 1, at += width) {
          found[at] = row;
        }
      });
    }
  }
  return found;
}
