/* vitc: an index of images, mapped, and the scan of it with the largest scores kept. The file is that of
 * vitc.retrieval.index_file. Linked into libraries that have a scan among their entries. */
#define _GNU_SOURCE
#include "vitc_search.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* By their numbers: C libraries of 32 bits differ in how long an off_t is. */
#ifdef SYS_mmap2
#define SYS_MAP SYS_mmap2
#else
#define SYS_MAP SYS_mmap
#endif

enum {
  ALIGNMENT = 64,
  BLOCK = 1 << 20,         /* bytes of a checksum */
  LONGEST_HEADER = 1 << 26,
  DEEPEST = 16,            /* nested values of a header */
  TOGETHER = 16384,       /* images whose scores are kept at once: they stay in a cache */
  STRIPE = 64,             /* scores of one text that are compared with the worst that is kept at once */
  LANES = 16,              /* the same of several texts */
  SCORES = 65536,          /* scores of several texts that are kept at once: they stay in a cache, too */
  TEXTS = 1024,            /* the most of them */
  GATHERED = 1 << 18,      /* bytes of images that are scored again at once */
  NAMES = 1024             /* images from one name whose place is remembered to the next */
};

typedef struct {
  const unsigned char *data;
  size_t size;
  const char *sums; /* in the header: the list of checksums */
  const char *sums_end;
  unsigned char *checked; /* of each block whether it was compared */
  uint32_t *checksums;
} section;

struct vitc_index {
  unsigned char *map;
  size_t bytes;
  int64_t images;
  int32_t width, tokens;
  char model[129];
  section first, all, ids;
  size_t *names; /* where every NAMES-th begins; null until one is asked for */
  int32_t *scores;     /* and behind them the worst that is kept of each text */
  unsigned char *rows; /* where images are gathered that are scored again */
};

/* --- checksums ------------------------------------------------------------------------------------------------------- */

static uint32_t table[8][256];
static volatile int table_made;

static void make_table(void) {
  if (table_made) return;
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; bit++) value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
    table[0][i] = value;
  }
  for (uint32_t i = 0; i < 256; i++)
    for (int k = 1; k < 8; k++) table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
  table_made = 1; /* whoever makes it at the same time writes the same */
}

static uint32_t crc32_of(const unsigned char *data, size_t size) {
  uint32_t crc = 0xFFFFFFFFu;
  for (; size >= 8; size -= 8, data += 8) {
    uint32_t low, high;
    memcpy(&low, data, 4);
    memcpy(&high, data + 4, 4);
    low ^= crc;
    crc = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^ table[4][low >> 24] ^
          table[3][high & 255] ^ table[2][high >> 8 & 255] ^ table[1][high >> 16 & 255] ^ table[0][high >> 24];
  }
  for (; size; size--, data++) crc = crc >> 8 ^ table[0][(crc ^ *data) & 255];
  return ~crc;
}

/* --- header: JSON ---------------------------------------------------------------------------------------------------- */

typedef struct {
  const char *at, *end;
} text;

/* A loop, since compilers make bcmp of memcmp, which not every C library has. */
static int same(const char *a, const char *b, size_t length) {
  size_t i = 0;
  while (i < length && a[i] == b[i]) i++;
  return i == length;
}

static void skip_space(text *t) {
  while (t->at < t->end && strchr(" \t\r\n", *t->at) && *t->at) t->at++;
}

static int take(text *t, char wanted) {
  skip_space(t);
  if (t->at >= t->end || *t->at != wanted) return 0;
  t->at++;
  return 1;
}

/* A string without escapes, as keys are and a model's SHA-256 is; others are only skipped. */
static int take_string(text *t, const char **start, size_t *length) {
  if (!take(t, '"')) return 0;
  *start = t->at;
  while (t->at < t->end && *t->at != '"') t->at += *t->at == '\\' ? 2 : 1;
  if (t->at >= t->end) return 0;
  *length = (size_t)(t->at++ - *start);
  return 1;
}

static int skip_value(text *t, int depth) {
  const char *start;
  size_t length;
  skip_space(t);
  if (t->at >= t->end || depth > DEEPEST) return 0;
  if (*t->at == '"') return take_string(t, &start, &length);
  if (*t->at == '{' || *t->at == '[') {
    int object = *t->at == '{';
    char close = object ? '}' : ']';
    t->at++;
    if (take(t, close)) return 1;
    do {
      if (object && (!take_string(t, &start, &length) || !take(t, ':'))) return 0;
      if (!skip_value(t, depth + 1)) return 0;
    } while (take(t, ','));
    return take(t, close);
  }
  while (t->at < t->end && !strchr(",]} \t\r\n", *t->at)) t->at++;
  return 1;
}

/* The value of a key of an object. */
static int find(text object, const char *key, text *value) {
  const char *start;
  size_t length;
  if (!take(&object, '{') || take(&object, '}')) return 0;
  do {
    if (!take_string(&object, &start, &length) || !take(&object, ':')) return 0;
    skip_space(&object);
    value->at = object.at;
    if (!skip_value(&object, 0)) return 0;
    value->end = object.at;
    if (length == strlen(key) && same(start, key, length)) return 1;
  } while (take(&object, ','));
  return 0;
}

static int take_number(text *t, uint64_t most, uint64_t *number) {
  skip_space(t);
  uint64_t value = 0;
  const char *start = t->at;
  for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++) {
    value = value * 10 + (uint64_t)(*t->at - '0');
    if (value > most) return 0;
  }
  *number = value;
  return t->at > start;
}

static int find_number(text object, const char *key, uint64_t most, uint64_t *number) {
  text value;
  return find(object, key, &value) && take_number(&value, most, number);
}

/* --- sections -------------------------------------------------------------------------------------------------------- */

/* Where a section lies, and its checksums; 0 if that is not within the file, 2 if there is no memory. */
static int place(section *part, text sections, const char *name, const vitc_index *index, size_t base) {
  text own, sums;
  uint64_t start, size, sum;
  if (!find(sections, name, &own) || !find_number(own, "start", index->bytes, &start) ||
      !find_number(own, "size", index->bytes, &size) || !find(own, "checksums", &sums))
    return 0;
  if (start > index->bytes - base || size > index->bytes - base - start) return 0;
  size_t blocks = (size_t)((size + BLOCK - 1) / BLOCK);
  part->data = index->map + base + start;
  part->size = (size_t)size;
  part->checked = calloc(blocks + 1, 1);
  part->checksums = malloc((blocks + 1) * sizeof *part->checksums);
  if (!part->checked || !part->checksums) return 2;
  if (!take(&sums, '[')) return 0;
  for (size_t i = 0; i < blocks; i++) {
    if ((i && !take(&sums, ',')) || !take_number(&sums, UINT32_MAX, &sum)) return 0;
    part->checksums[i] = (uint32_t)sum;
  }
  return take(&sums, ']');
}

/* Whether every section lies within the file, those that are of no use here too. */
static int whole(text sections, size_t room) {
  const char *name;
  size_t length;
  uint64_t start, size;
  if (!take(&sections, '{')) return 0;
  do {
    if (!take_string(&sections, &name, &length) || !take(&sections, ':')) return 0;
    text own = sections;
    if (!skip_value(&sections, 0)) return 0;
    own.end = sections.at;
    if (!find_number(own, "start", room, &start) || !find_number(own, "size", room - start, &size)) return 0;
  } while (take(&sections, ','));
  return 1;
}

/* Compare bytes of a section with their checksums, those that were not yet. */
static int sound(section *part, size_t start, size_t size) {
  if (!size) return 1;
  for (size_t block = start / BLOCK; block <= (start + size - 1) / BLOCK; block++) {
    if (part->checked[block]) continue;
    size_t at = block * BLOCK, length = part->size - at < BLOCK ? part->size - at : BLOCK;
    if (crc32_of(part->data + at, length) != part->checksums[block]) return 0;
    part->checked[block] = 1;
  }
  return 1;
}

/* --- index ----------------------------------------------------------------------------------------------------------- */

static vitc_search_status read_header(vitc_index *index) {
  const size_t before = 16;
  uint64_t length, width, tokens, images, block;
  uint32_t checksum;
  if (index->bytes < 7 || !same((const char *)index->map, "VITCIDX", 7)) return VITC_SEARCH_FILE;
  if (index->bytes < before || index->map[7] != '1') return VITC_SEARCH_DAMAGED;
  memcpy(&length, index->map + 8, sizeof length);
  if (length > LONGEST_HEADER || index->bytes - before < length + sizeof checksum) return VITC_SEARCH_DAMAGED;
  memcpy(&checksum, index->map + before + length, sizeof checksum);
  if (crc32_of(index->map + before, (size_t)length) != checksum) return VITC_SEARCH_DAMAGED;
  text header = {(const char *)index->map + before, (const char *)index->map + before + length}, model, sections;
  const char *name;
  size_t name_length;
  if (!find_number(header, "block", INT32_MAX, &block) || block != BLOCK ||
      !find_number(header, "width", 1 << 24, &width) || !width || !find_number(header, "tokens", 1 << 24, &tokens) ||
      !tokens || !find_number(header, "images", INT32_MAX, &images) || !find(header, "model", &model) ||
      !take_string(&model, &name, &name_length) || name_length >= sizeof index->model || !find(header, "sections", &sections))
    return VITC_SEARCH_DAMAGED;
  memcpy(index->model, name, name_length);
  index->width = (int32_t)width;
  index->tokens = (int32_t)tokens;
  index->images = (int64_t)images;
  size_t base = (before + (size_t)length + sizeof checksum + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (base > index->bytes || !whole(sections, index->bytes - base)) return VITC_SEARCH_DAMAGED;
  section *parts[] = {&index->first, &index->all, &index->ids};
  const char *names[] = {"first", "tokens", "ids"};
  for (int i = 0; i < 3; i++) {
    int placed = place(parts[i], sections, names[i], index, base);
    if (placed != 1) return placed ? VITC_SEARCH_MEMORY : VITC_SEARCH_DAMAGED;
  }
  uint64_t row = (width + 7) / 8;
  if (index->first.size != images * row || index->all.size / row != images * tokens || index->all.size % row)
    return VITC_SEARCH_DAMAGED;
  return VITC_SEARCH_OK;
}

void vitc_index_close(vitc_index *index) {
  if (!index) return;
  section *parts[] = {&index->first, &index->all, &index->ids};
  for (int i = 0; i < 3; i++) {
    free(parts[i]->checked);
    free(parts[i]->checksums);
  }
  free(index->names);
  free(index->scores);
  free(index->rows);
  if (index->map) munmap(index->map, index->bytes);
  free(index);
}

vitc_search_status vitc_index_open(const char *path, const char *model, vitc_index **result) {
  if (!result) return VITC_SEARCH_ARGUMENT;
  *result = NULL;
  if (!path) return VITC_SEARCH_ARGUMENT;
  make_table();
  vitc_index *index = calloc(1, sizeof *index);
  if (!index) return VITC_SEARCH_MEMORY;
  vitc_search_status status = VITC_SEARCH_FILE;
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  long size = file < 0 ? -1 : syscall(SYS_lseek, (long)file, 0L, (long)SEEK_END);
  if (size > 0) {
    void *map = (void *)syscall(SYS_MAP, 0L, size, (long)PROT_READ, (long)MAP_PRIVATE, (long)file, 0L);
    if (map != MAP_FAILED) {
      index->map = map;
      index->bytes = (size_t)size;
      status = read_header(index);
    }
  }
  if (file >= 0) close(file);
  if (!status && model && strcmp(model, index->model)) status = VITC_SEARCH_MODEL;
  if (!status) {
    index->scores = malloc((SCORES + TEXTS) * sizeof *index->scores);
    index->rows = malloc(GATHERED);
    if (!index->scores || !index->rows) status = VITC_SEARCH_MEMORY;
  }
  if (status) {
    vitc_index_close(index);
    return status;
  }
  *result = index;
  return VITC_SEARCH_OK;
}

void vitc_index_get_info(const vitc_index *index, vitc_index_info *info) {
  if (!index || !info) return;
  const vitc_index_info found = {index->images, index->width, index->tokens, index->model};
  *info = found;
}

/* Remember where every NAMES-th name begins. */
static vitc_search_status place_names(vitc_index *index) {
  const section *ids = &index->ids;
  if (!sound(&index->ids, 0, ids->size)) return VITC_SEARCH_DAMAGED;
  size_t *places = calloc((size_t)(index->images / NAMES) + 1, sizeof *places), at = 0;
  if (!places) return VITC_SEARCH_MEMORY;
  for (int64_t image = 0; image < index->images; image++) {
    const unsigned char *end = at < ids->size ? memchr(ids->data + at, 0, ids->size - at) : NULL;
    if (!end) {
      free(places);
      return VITC_SEARCH_DAMAGED;
    }
    if (image % NAMES == 0) places[image / NAMES] = at;
    at = (size_t)(end - ids->data) + 1;
  }
  index->names = places;
  return VITC_SEARCH_OK;
}

vitc_search_status vitc_index_name(vitc_index *index, int64_t image, const char **name) {
  if (!index || !name || image < 0 || image >= index->images) return VITC_SEARCH_ARGUMENT;
  vitc_search_status status = index->names ? VITC_SEARCH_OK : place_names(index);
  if (status) return status;
  const char *at = (const char *)index->ids.data + index->names[image / NAMES];
  for (int64_t i = image % NAMES; i; i--) at += strlen(at) + 1;
  *name = at;
  return VITC_SEARCH_OK;
}

/* --- scan ------------------------------------------------------------------------------------------------------------ */

/* What an entry reads of an index. */
typedef struct {
  const char *entry, *query_port, *document_port, *score_port;
  section *part;
  size_t row;    /* bytes of an image */
  int32_t texts; /* scored at once */
} reading;

/* `several`: whether the entry scores texts along an axis of their own, or one without. */
static vitc_search_status read_with(vitc_index *index, const char *entry, size_t query_bytes, int several, reading *result) {
  vitc_info info;
  vitc_entry facts;
  vitc_port query, documents, scores;
  vitc_get_info(&info);
  int32_t number = 0;
  while (number < info.entries && (vitc_get_entry(number, &facts) || strcmp(facts.name, entry))) number++;
  if (number == info.entries || facts.inputs != 2 || facts.ports != 3) return VITC_SEARCH_ENTRY;
  if (vitc_get_port(number, 0, &query) || vitc_get_port(number, 1, &documents) || vitc_get_port(number, 2, &scores))
    return VITC_SEARCH_ENTRY;
  int64_t row = (index->width + 7) / 8;
  if (query.axes != 2 + several || scores.axes != 1 + several) return VITC_SEARCH_ENTRY;
  int64_t texts = several ? query.shape[0] : 1;
  int fits = query.dtype == VITC_UINT8 && query.shape[1 + several] == row && !query.per_image && texts <= TEXTS &&
             (uint64_t)(texts * query.shape[several] * row) == query_bytes && documents.dtype == VITC_UINT8 &&
             documents.axes == 3 && documents.shape[0] == VITC_EXTENT && documents.shape[2] == row && !documents.per_image &&
             scores.dtype == VITC_INT32 && scores.shape[0] == VITC_EXTENT && !scores.per_image;
  int64_t vectors = fits ? documents.shape[1] : 0;
  if (vectors != 1 && vectors != index->tokens) return VITC_SEARCH_ENTRY;
  result->entry = entry;
  result->query_port = query.name;
  result->document_port = documents.name;
  result->score_port = scores.name;
  result->part = vectors == 1 ? &index->first : &index->all;
  result->row = (size_t)(vectors * row);
  result->texts = (int32_t)texts;
  return VITC_SEARCH_OK;
}

static vitc_search_status score(vitc_model *model, vitc_index *index, const reading *how, const uint8_t *query,
                                size_t query_bytes, const unsigned char *images, int32_t count) {
  const vitc_array arrays[] = {
      {how->query_port, (void *)(uintptr_t)query, query_bytes},
      {how->document_port, (void *)(uintptr_t)images, (size_t)count * how->row},
      {how->score_port, index->scores, (size_t)count * (size_t)how->texts * sizeof *index->scores},
  };
  const vitc_call call = {sizeof call, how->entry, arrays, 3, count, NULL, NULL};
  return vitc_run_ports(model, &call) ? VITC_SEARCH_RUN : VITC_SEARCH_OK;
}

/* Score images that follow each other in the index, where they are. */
static vitc_search_status score_part(vitc_model *model, vitc_index *index, const reading *how, const uint8_t *query,
                                     size_t query_bytes, int64_t image, int32_t count) {
  size_t at = (size_t)image * how->row;
  if (!sound(how->part, at, (size_t)count * how->row)) return VITC_SEARCH_DAMAGED;
  return score(model, index, how, query, query_bytes, how->part->data + at, count);
}

static int worse(vitc_found a, vitc_found b) { return a.score < b.score || (a.score == b.score && a.image > b.image); }

/* Sink a new entry of a heap whose root is the worst. */
static void sink(vitc_found *heap, int32_t count, int32_t at) {
  vitc_found moved = heap[at];
  for (int32_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && worse(heap[child + 1], heap[child])) child++;
    if (!worse(heap[child], moved)) break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}

/* Make a heap, and a list of it, the best first. */
static void order(vitc_found *found, int32_t count) {
  for (int32_t at = count / 2; at-- > 0;) sink(found, count, at);
  for (int32_t left = count; left-- > 1;) {
    vitc_found last = found[left];
    found[left] = found[0];
    found[0] = last;
    sink(found, left, 0);
  }
}

/* Whether one of some scores is above the worst that is kept. The usual stripe has none, and a count that is known where it is
 * called makes vectors of the comparisons. `step`: 0 for one worst, 1 for one of each score. */
static inline int any_above(const int32_t *scores, const int32_t *worst, int step, int count) {
  int any = 0;
  for (int i = 0; i < count; i++) any |= scores[i] > worst[i * step];
  return any;
}

/* Keep what is better than the worst that is kept; images come in order, so an equal one is not. */
static int32_t keep(const int32_t *scores, int32_t count, int64_t image, vitc_found *found, int32_t kept, int32_t most) {
  int32_t at = 0;
  for (; at < count && kept < most; at++) {
    found[kept].image = image + at;
    found[kept++].score = scores[at];
    if (kept == most)
      for (int32_t i = most / 2; i-- > 0;) sink(found, most, i);
  }
  if (kept < most) return kept;
  for (int32_t end; at < count; at = end) {
    int32_t worst = found[0].score;
    end = count - at < STRIPE ? count : at + STRIPE;
    if (end - at == STRIPE && !any_above(scores + at, &worst, 0, STRIPE)) continue;
    for (int32_t i = at; i < end; i++) {
      if (scores[i] <= found[0].score) continue;
      found[0].image = image + i;
      found[0].score = scores[i];
      sink(found, most, 0);
    }
  }
  return kept;
}

/* The same of several texts, [images, texts], each with its own list of `most` and its own worst. */
static int32_t keep_each(const int32_t *scores, int32_t count, int32_t texts, int64_t image, vitc_found *found,
                         int32_t *worst, int32_t kept, int32_t most) {
  int32_t at = 0;
  for (; at < count && kept < most; at++) {
    for (int32_t j = 0; j < texts; j++) {
      vitc_found *list = found + (size_t)j * (size_t)most;
      list[kept].image = image + at;
      list[kept].score = scores[(size_t)at * (size_t)texts + (size_t)j];
      if (kept + 1 < most) continue;
      for (int32_t i = most / 2; i-- > 0;) sink(list, most, i);
      worst[j] = list[0].score;
    }
    kept++;
  }
  for (; at < count; at++) {
    const int32_t *row = scores + (size_t)at * (size_t)texts;
    int32_t first = 0;
    while (texts - first >= LANES && !any_above(row + first, worst + first, 1, LANES)) first += LANES;
    if (texts - first < LANES && !any_above(row + first, worst + first, 1, texts - first)) continue;
    for (int32_t j = first; j < texts; j++) {
      if (row[j] <= worst[j]) continue;
      vitc_found *list = found + (size_t)j * (size_t)most;
      list[0].image = image + at;
      list[0].score = row[j];
      sink(list, most, 0);
      worst[j] = list[0].score;
    }
  }
  return kept;
}

vitc_search_status vitc_search(vitc_model *model, vitc_index *index, const char *entry, const uint8_t *query,
                               size_t query_bytes, int32_t most, vitc_found *found, int32_t *count) {
  if (!model || !index || !entry || !query || !count || most < 0 || (most && !found)) return VITC_SEARCH_ARGUMENT;
  *count = 0;
  reading how;
  vitc_search_status status = read_with(index, entry, query_bytes, 0, &how);
  int32_t kept = 0, wanted = most < index->images ? most : (int32_t)index->images;
  for (int64_t image = 0; !status && wanted && image < index->images; image += TOGETHER) {
    int32_t part = index->images - image < TOGETHER ? (int32_t)(index->images - image) : TOGETHER;
    status = score_part(model, index, &how, query, query_bytes, image, part);
    if (!status) kept = keep(index->scores, part, image, found, kept, wanted);
  }
  if (status) return status;
  order(found, kept);
  *count = kept;
  return VITC_SEARCH_OK;
}

vitc_search_status vitc_search_texts(vitc_model *model, vitc_index *index, const char *entry, const uint8_t *queries,
                                     size_t query_bytes, int32_t most, vitc_found *found, int32_t *count) {
  if (!model || !index || !entry || !queries || !count || most < 0 || (most && !found)) return VITC_SEARCH_ARGUMENT;
  *count = 0;
  reading how;
  vitc_search_status status = read_with(index, entry, query_bytes, 1, &how);
  if (status) return status;
  int32_t kept = 0, together = SCORES / how.texts;
  for (int64_t image = 0; !status && most && image < index->images; image += together) {
    int32_t part = index->images - image < together ? (int32_t)(index->images - image) : together;
    status = score_part(model, index, &how, queries, query_bytes, image, part);
    if (!status)
      kept = keep_each(index->scores, part, how.texts, image, found, index->scores + SCORES, kept, most);
  }
  if (status) return status;
  for (int32_t j = 0; j < how.texts; j++) order(found + (size_t)j * (size_t)most, kept);
  *count = kept;
  return VITC_SEARCH_OK;
}

vitc_search_status vitc_rank(vitc_model *model, vitc_index *index, const char *entry, const uint8_t *query,
                             size_t query_bytes, vitc_found *found, int32_t count) {
  if (!model || !index || !entry || !query || count < 0 || (count && !found)) return VITC_SEARCH_ARGUMENT;
  reading how;
  vitc_search_status status = read_with(index, entry, query_bytes, 0, &how);
  if (status) return status;
  for (int32_t i = 0; i < count; i++)
    if (found[i].image < 0 || found[i].image >= index->images) return VITC_SEARCH_ARGUMENT;
  for (int32_t i = 0, part; !status && i < count; i += part) {
    /* Kernels compare many images at once, so they are laid side by side. */
    size_t room = GATHERED / how.row;
    part = room < 2 ? 1 : (size_t)(count - i) < room ? count - i : (int32_t)room;
    if (part == 1) {
      status = score_part(model, index, &how, query, query_bytes, found[i].image, 1);
    } else {
      for (int32_t k = 0; k < part; k++) {
        size_t at = (size_t)found[i + k].image * how.row;
        if (!sound(how.part, at, how.row)) return VITC_SEARCH_DAMAGED;
        memcpy(index->rows + (size_t)k * how.row, how.part->data + at, how.row);
      }
      status = score(model, index, &how, query, query_bytes, index->rows, part);
    }
    for (int32_t k = 0; !status && k < part; k++) found[i + k].score = index->scores[k];
  }
  if (!status) order(found, count);
  return status;
}

const char *vitc_search_status_text(vitc_search_status status) {
  switch (status) {
    case VITC_SEARCH_OK: return "No error.";
    case VITC_SEARCH_ARGUMENT: return "A pointer is null, a count is negative, or there is no such image.";
    case VITC_SEARCH_FILE: return "The file cannot be read, or is no index of vitc.";
    case VITC_SEARCH_DAMAGED: return "The index is cut off, damaged or of another version; build it again.";
    case VITC_SEARCH_MODEL: return "The index was built with another model, whose vectors mean something else.";
    case VITC_SEARCH_MEMORY: return "There is not enough memory.";
    case VITC_SEARCH_ENTRY: return "The entry is no scan of so many texts, or has other sizes than index and query.";
    case VITC_SEARCH_RUN: return "The model was destroyed, or is running in another thread.";
  }
  return "Unknown status.";
}
