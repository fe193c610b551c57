// What was dropped, chosen or packed -> files: folders are walked, zip archives are opened here.

const MOST_FILES = 256;
const MOST_BYTES = 2 ** 30; // of what archives unpack to: more does not fit in a page's memory
const END_OF_LIST = 0x06054b50; // at the end of an archive
const [SHORTEST_END, LONGEST_END] = [22, 22 + 0xffff];
// What archivers and systems add of their own accord
const NOT_SENT = /(^|\/)(__MACOSX\/|\.DS_Store$|Thumbs\.db$|DICOMDIR$|\.)/;

/**
 * What cannot be taken: `reason` is "files" or "bytes" for more than a page can hold, "archive" for
 * a damaged one, "unreadable", or "none" where nothing is left.
 */
export class Unacceptable extends Error {
  constructor(reason) {
    super(reason);
    this.reason = reason;
  }
}

/** The files of a drop, those in folders included. Must be called within the event. */
export async function droppedFiles(transfer) {
  const files = [...transfer.files]; // gone after the event, as the items are
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return opened(files);
  const found = [];
  try {
    for (const entry of entries) await walk(entry, found);
  } catch (error) {
    throw error instanceof Unacceptable ? error : new Unacceptable("unreadable");
  }
  return opened(found);
}

/** `files` with what is in zip archives in their place. Throws `Unacceptable`. */
export async function opened(files) {
  const found = [];
  const room = { bytes: MOST_BYTES };
  for (const file of files) {
    if (NOT_SENT.test(file.webkitRelativePath || file.name)) continue;
    if (await isZip(file)) found.push(...(await unzipped(file, room)));
    else found.push(file);
    if (found.length > MOST_FILES) throw new Unacceptable("files");
  }
  if (files.length && !found.length) throw new Unacceptable("none");
  return found;
}

async function walk(entry, found) {
  if (NOT_SENT.test(entry.fullPath)) return;
  if (found.length > MOST_FILES) throw new Unacceptable("files");
  if (entry.isFile) {
    found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  // A reader gives a hundred entries at a time, and none at the end
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const inner of some) await walk(inner, found);
  }
}

/** Whether it is a zip archive; one that is encrypted cannot be taken. */
async function isZip(file) {
  const start = await bytesOf(file, 0, 8);
  const is = start[0] === 0x50 && start[1] === 0x4b && start[2] === 3 && start[3] === 4;
  // The library inflates what is encrypted, and now and then finds no fault in it
  if (is && start[6] & 1) throw new Unacceptable("archive");
  return is;
}

async function bytesOf(file, start, end) {
  try {
    return new Uint8Array(await file.slice(start, end).arrayBuffer());
  } catch {
    throw new Unacceptable("unreadable");
  }
}

/** How many files the list at the end of an archive names (APPNOTE 4.3.16); null without one. */
async function listed(file) {
  const tail = await bytesOf(file, Math.max(0, file.size - LONGEST_END), file.size);
  const view = new DataView(tail.buffer);
  for (let place = tail.length - SHORTEST_END; place >= 0; place -= 1) {
    if (view.getUint32(place, true) === END_OF_LIST) return view.getUint16(place + 10, true);
  }
  return null;
}

async function unzipped(file, room) {
  const { Unzip, UnzipInflate } = await import("./vendor/fflate.js");
  const files = [];
  const count = await listed(file);
  let seen = 0;
  let fault = null;
  const archive = new Unzip((entry) => {
    seen += 1;
    if (entry.name.endsWith("/") || NOT_SENT.test(entry.name)) return;
    if (files.length >= MOST_FILES) {
      fault = new Unacceptable("files");
      return;
    }
    const held = { name: entry.name.split("/").at(-1), parts: [], ended: false };
    files.push(held);
    entry.ondata = (error, data, final) => {
      if (error) fault ??= new Unacceptable("archive");
      else {
        room.bytes -= data.length;
        if (room.bytes < 0) fault ??= new Unacceptable("bytes");
        else held.parts.push(data);
      }
      held.ended = final;
    };
    entry.start();
  });
  archive.register(UnzipInflate);
  const reader = file.stream().getReader();
  try {
    for (let read = await reader.read(); !fault; read = await reader.read()) {
      archive.push(read.value ?? new Uint8Array(), read.done);
      if (read.done) break;
    }
  } catch {
    fault ??= new Unacceptable("archive");
  } finally {
    reader.cancel().catch(() => {});
  }
  // One that is cut short may end between two files: none is to be lost without a word
  const isWhole = seen === count && files.every((held) => held.ended);
  if (!fault && !isWhole) fault = new Unacceptable("archive");
  if (fault) throw fault;
  return files.map((held) => new File(held.parts, held.name));
}
