/* vitc: from the maps of a detector to boxes, as vitc.runtime.detection does it. Linked into libraries whose first entry gives
 * such maps. */
#include "vitc_detect.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "vitc_pictures.h"

#pragma STDC FP_CONTRACT OFF

enum { BRANCHES = 3 };

static const char *const branches[BRANCHES] = {"classes_", "boxes_", "centreness_"};

static const vitc_detect_options usual = {sizeof usual, 0.05f, 0.6f, 1000, 100};

typedef struct {
  vitc_box box;
  int64_t place; /* its number among all classes of all places of all levels */
} candidate;

static int better(const candidate *a, const candidate *b) {
  return a->box.score > b->box.score || (a->box.score == b->box.score && a->place < b->place);
}

/* A heap with the worst in front: let the entry at `at` sink to where it belongs. */
static void sink(candidate *heap, int32_t count, int32_t at) {
  const candidate moved = heap[at];
  for (int32_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && better(&heap[child], &heap[child + 1])) child++;
    if (better(&heap[child], &moved)) break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}

static void add(candidate *heap, int32_t *count, int32_t most, const candidate *found) {
  if (*count == most) {
    if (!better(found, heap)) return;
    heap[0] = *found;
    sink(heap, most, 0);
    return;
  }
  int32_t at = (*count)++;
  for (int32_t parent; at && better(&heap[parent = (at - 1) / 2], found); at = parent) heap[at] = heap[parent];
  heap[at] = *found;
}

static float larger(float a, float b) { return a > b ? a : b; }
static float smaller(float a, float b) { return a < b ? a : b; }
static float area(const vitc_box *box) { return (box->x1 - box->x0) * (box->y1 - box->y0); }

static int overlaps(const vitc_box *a, const vitc_box *b, float most) {
  float wide = larger(smaller(a->x1, b->x1) - larger(a->x0, b->x0), 0.0f);
  float high = larger(smaller(a->y1, b->y1) - larger(a->y0, b->y0), 0.0f);
  float common = wide * high, both = area(b) + area(a);
  float joined = both - common;
  return common > most * joined;
}

/* Of distances; comparisons, so that no library of mathematics is needed. */
static int finite4(const float side[4]) {
  for (int i = 0; i < 4; i++)
    if (!(side[i] >= -FLT_MAX && side[i] <= FLT_MAX)) return 0;
  return 1;
}

static int share(float value) { return value >= 0.0f && value <= 1.0f; }

vitc_status vitc_decode(const vitc_level *levels, int32_t number, int32_t classes, int32_t height, int32_t width,
                        const vitc_detect_options *options, vitc_box *boxes, int32_t room, int32_t *count) {
  const vitc_detect_options *chosen = options ? options : &usual;
  if (!levels || number < 1 || number > VITC_MAX_LEVELS || classes < 1 || height < 1 || width < 1 || !count || room < 0 ||
      (room && !boxes) || chosen->size != sizeof *chosen || !share(chosen->score) || !share(chosen->overlap) ||
      chosen->candidates < 1 || chosen->most < 1)
    return VITC_ERROR_ARGUMENT;
  int64_t values = 0;
  for (int32_t i = 0; i < number; i++) {
    const vitc_level *level = &levels[i];
    if (level->stride < 1 || level->rows < 1 || level->columns < 1 || !level->classes || !level->boxes || !level->centreness)
      return VITC_ERROR_ARGUMENT;
    values += (int64_t)level->rows * level->columns * classes;
  }
  int32_t most = values < chosen->candidates ? (int32_t)values : chosen->candidates, held = 0;
  candidate *heap = malloc((size_t)most * sizeof *heap);
  if (!heap) return VITC_ERROR_MEMORY;
  candidate next = {.place = 0};
  for (int32_t i = 0; i < number; i++) {
    const vitc_level *level = &levels[i];
    const float apart = (float)level->stride, *score = level->classes;
    for (int32_t row = 0; row < level->rows; row++) {
      for (int32_t column = 0; column < level->columns; column++) {
        const size_t at = (size_t)row * (size_t)level->columns + (size_t)column;
        const float *side = level->boxes + 4 * at;
        for (int32_t label = 0; label < classes; label++, next.place++) {
          next.box.score = *score++ * level->centreness[at];
          if (!(next.box.score > chosen->score) || !finite4(side)) continue;
          float x = ((float)column + 0.5f) * apart, y = ((float)row + 0.5f) * apart;
          next.box.x0 = larger(x - side[0], 0.0f);
          next.box.y0 = larger(y - side[1], 0.0f);
          next.box.x1 = smaller(x + side[2], (float)width);
          next.box.y1 = smaller(y + side[3], (float)height);
          next.box.label = label;
          add(heap, &held, most, &next);
        }
      }
    }
  }
  for (int32_t left = held; left > 1;) { /* the best in front */
    candidate worst = heap[0];
    heap[0] = heap[--left];
    heap[left] = worst;
    sink(heap, left, 0);
  }
  int32_t kept = 0; /* at the front of the list */
  for (int32_t i = 0; i < held && kept < chosen->most; i++) {
    int32_t other = 0;
    for (; other < kept; other++)
      if (heap[other].box.label == heap[i].box.label && overlaps(&heap[other].box, &heap[i].box, chosen->overlap)) break;
    if (other == kept) heap[kept++] = heap[i];
  }
  for (int32_t i = 0; i < kept && i < room; i++) boxes[i] = heap[i].box;
  free(heap);
  *count = kept;
  return VITC_OK;
}

/* --- a picture --------------------------------------------------------------------------------------------------------- */

/* Which branch a port is of, and its stride; -1 if of none. */
static int branch_of(const char *name, int32_t *stride) {
  for (int branch = 0; branch < BRANCHES; branch++) {
    const char *digit = name, *begin = branches[branch];
    while (*begin && *begin == *digit) begin++, digit++;
    if (*begin) continue;
    for (*stride = 0; *digit >= '0' && *digit <= '9' && *stride < 65536; digit++) *stride = *stride * 10 + (*digit - '0');
    return *digit || !*stride ? -1 : branch;
  }
  return -1;
}

static size_t values_of(const vitc_port *port) {
  size_t count = 1;
  for (int32_t axis = 0; axis < port->axes; axis++) count *= (size_t)port->shape[axis];
  return count;
}

/* Where levels of a stride stand, or are to stand: the finest first. */
static vitc_level *level_of(vitc_level *levels, int32_t *number, int32_t stride) {
  int32_t at = 0;
  while (at < *number && levels[at].stride < stride) at++;
  if (at < *number && levels[at].stride == stride) return &levels[at];
  if (*number == VITC_MAX_LEVELS) return NULL;
  memmove(&levels[at + 1], &levels[at], (size_t)(*number - at) * sizeof *levels);
  memset(&levels[at], 0, sizeof *levels);
  levels[at].stride = stride;
  (*number)++;
  return &levels[at];
}

/* A side of a box, on the picture. */
static float back(float side, int32_t corner, int32_t resized, int32_t whole) {
  double scale = (double)resized / whole, found = ((double)side + corner) / scale;
  if (found < 0.0) found = 0.0;
  return (float)(found > whole ? whole : found);
}

vitc_status vitc_detect(vitc_model *model, const uint8_t *rgb, int32_t height, int32_t width, size_t stride,
                        const vitc_detect_options *options, vitc_box *boxes, int32_t room, int32_t *count) {
  vitc_info info;
  vitc_entry entry;
  vitc_port ports[VITC_MAX_PORTS];
  vitc_array arrays[VITC_MAX_PORTS];
  vitc_level levels[VITC_MAX_LEVELS];
  int32_t number = 0, classes = 0;
  vitc_get_info(&info);
  if (vitc_get_entry(0, &entry) || entry.inputs != 1) return VITC_ERROR_PORT;
  size_t floats = 0, batch = (size_t)info.batch;
  for (int32_t i = 0; i < entry.ports; i++) {
    if (vitc_get_port(0, i, &ports[i]) || ports[i].dtype != VITC_FLOAT32 || !ports[i].per_image || ports[i].axes != 3)
      return VITC_ERROR_PORT;
    floats += batch * values_of(&ports[i]);
  }
  vitc_preprocessing how;
  vitc_status status = vitc_get_preprocessing(&how);
  if (status) return status;
  if (ports[0].shape[0] != 3 || ports[0].shape[1] != how.height || ports[0].shape[2] != how.width) return VITC_ERROR_PORT;
  float *memory = calloc(floats, sizeof *memory), *at = memory;
  if (!memory) return VITC_ERROR_MEMORY;
  for (int32_t i = 0; i < entry.ports; i++) {
    const vitc_port *port = &ports[i];
    arrays[i] = (vitc_array){port->name, at, batch * values_of(port) * sizeof *at};
    int32_t apart;
    int branch = i < entry.inputs ? -1 : branch_of(port->name, &apart);
    vitc_level *level = branch < 0 ? NULL : level_of(levels, &number, apart);
    if (i >= entry.inputs && !level) status = VITC_ERROR_PORT;
    if (level) {
      const int32_t rows = (int32_t)port->shape[0], columns = (int32_t)port->shape[1], values = (int32_t)port->shape[2];
      const int32_t wanted = branch == 0 ? (classes ? classes : values) : branch == 1 ? 4 : 1;
      if (values != wanted || (level->rows && (level->rows != rows || level->columns != columns))) status = VITC_ERROR_PORT;
      level->rows = rows;
      level->columns = columns;
      if (branch == 0) classes = values;
      *(branch == 0 ? &level->classes : branch == 1 ? &level->boxes : &level->centreness) = at;
    }
    at += batch * values_of(port);
  }
  /* The other images of a batch are zeros. */
  if (!status) status = vitc_preprocess(rgb, height, width, stride, memory);
  const vitc_call call = {sizeof call, entry.name, arrays, entry.ports, 0, NULL, NULL};
  if (!status) status = vitc_run_ports(model, &call);
  if (!status) status = vitc_decode(levels, number, classes, how.height, how.width, options, boxes, room, count);
  free(memory);
  if (status) return status;
  vitc_placement placed;
  vitc_place(height, width, &placed);
  for (int32_t i = 0; i < *count && i < room; i++) {
    boxes[i].x0 = back(boxes[i].x0, placed.left, placed.width, width);
    boxes[i].x1 = back(boxes[i].x1, placed.left, placed.width, width);
    boxes[i].y0 = back(boxes[i].y0, placed.top, placed.height, height);
    boxes[i].y1 = back(boxes[i].y1, placed.top, placed.height, height);
  }
  return VITC_OK;
}
