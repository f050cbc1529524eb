/* vitc-run --self-test: the library against its digest, each buffer against what it was when the model was compiled, and the
 * outputs against those of ONNX Runtime. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vitc_runner.h"

#define TOLERANCE 1e-4f /* of a logit; of other floats beyond 1, a part of the largest */

enum { MOST_TEXT = 16 << 20 };

static char *beside(const char *library, const char *name) {
  const char *slash = strrchr(library, '/');
  int folder = slash ? (int)(slash - library) + 1 : 0;
  char *path = malloc(PATH_BYTES);
  if (!path) die("not enough memory");
  if (snprintf(path, PATH_BYTES, "%.*s%s", folder, library, name) >= PATH_BYTES) die("%s: the path is too long", library);
  return path;
}

/* A whole file as text; null if there is none. */
static char *read_text(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  char *text = malloc(MOST_TEXT + 1);
  if (!text) die("not enough memory");
  size_t length = fread(text, 1, MOST_TEXT + 1, file);
  fclose(file);
  if (length > MOST_TEXT) die("%s: it is too large", path);
  text[length] = 0;
  return text;
}

/* The digest that the manifest has for a file. A quote within a text of JSON stands behind a backslash, so what looks like
 * the name of a field is one. */
static int find_digest(const char *manifest, const char *name, char digest[SHA256_TEXT]) {
  char field[300];
  if (snprintf(field, sizeof field, "\"%s\"", name) >= (int)sizeof field) return 0;
  for (const char *at = manifest; (at = strstr(at, field)); at++) {
    const char *value = at + strlen(field);
    value += strspn(value, " \t\r\n");
    if (*value++ != ':') continue;
    value += strspn(value, " \t\r\n");
    if (*value++ != '"' || strspn(value, "0123456789abcdef") != SHA256_TEXT - 1 || value[SHA256_TEXT - 1] != '"') continue;
    memcpy(digest, value, SHA256_TEXT - 1);
    digest[SHA256_TEXT - 1] = 0;
    return 1;
  }
  return 0;
}

void open_self_test(self_test *test, const char *library) {
  char *path = beside(library, "manifest.json");
  test->library = library;
  test->manifest = read_text(path);
  if (!test->manifest) die("%s: %s", path, strerror(errno));
  const char *slash = strrchr(library, '/');
  if (!find_digest(test->manifest, slash ? slash + 1 : library, test->recorded))
    die("%s: it has no SHA-256 of %s", path, library);
  free(path);
}

enum { NAME_BYTES = 128 };

static void name_of(char name[NAME_BYTES], const char *prefix, const char *kind) {
  snprintf(name, NAME_BYTES, "%s%sself_test%s", prefix ? prefix : "", prefix ? "." : "", kind);
}

static void array_name(char name[NAME_BYTES], const char *prefix, const char *kind, int32_t number, int32_t count) {
  char end[32];
  if (count == 1) snprintf(end, sizeof end, "%s.npy", kind);
  else snprintf(end, sizeof end, "%s.%d.npy", kind, (int)number);
  name_of(name, prefix, end);
}

int has_self_test(const self_test *test, const char *prefix, int32_t inputs, digest_list *list) {
  char name[NAME_BYTES], ignored[SHA256_TEXT];
  array_name(name, prefix, "", 0, inputs);
  if (!find_digest(test->manifest, name, ignored)) return 0;
  name_of(name, prefix, ".taps");
  *list = (digest_list){NULL, beside(test->library, name), NULL, 0};
  if (find_digest(test->manifest, name, ignored) && !(list->at = read_text(list->path)))
    die("%s: %s", list->path, strerror(errno));
  return 1;
}

char *self_test_path(const self_test *test, const char *prefix, const char *kind, int32_t number, int32_t count) {
  char name[NAME_BYTES];
  array_name(name, prefix, kind, number, count);
  return beside(test->library, name);
}

void take_digest(void *user, int32_t image, int32_t step, const char *name, const void *data, size_t bytes) {
  digest_list *list = user;
  if (image) return;
  char digest[SHA256_TEXT];
  sha256(data, bytes, digest);
  if (list->file) fprintf(list->file, "%s  %s\n", digest, name);
  if (!list->at) return;
  const char *line = list->at, *end = strchr(line, '\n');
  size_t length = strlen(name), before = SHA256_TEXT + 1;
  if (!end || (size_t)(end - line) != before + length || strspn(line, "0123456789abcdef") != SHA256_TEXT - 1 ||
      strncmp(line + SHA256_TEXT - 1, "  ", 2) || strncmp(line + before, name, length))
    die("%s: it does not belong to this model", list->path);
  if (strncmp(line, digest, SHA256_TEXT - 1))
    die("the self-test failed: %s (kernel %d) is not what it was when the model was compiled; do not use this library "
        "here", name, (int)step);
  list->at = end + 1;
  list->taps++;
}

static size_t largest(const float *values, size_t count) {
  size_t best = 0;
  for (size_t i = 1; i < count; i++)
    if (values[i] > values[best]) best = i;
  return best;
}

/* A row of logits: close, and the same class. Other floats: close. */
static float compare_floats(const port_array *found, const float *own, const float *other, size_t count) {
  float worst = 0, size = 1;
  for (size_t i = 0; i < count; i++) {
    float apart = own[i] > other[i] ? own[i] - other[i] : other[i] - own[i];
    float value = other[i] < 0 ? -other[i] : other[i];
    if (!(apart <= worst)) worst = apart; /* a NaN is the worst */
    if (value > size) size = value;
  }
  if (found->port.axes != 1) {
    if (worst <= TOLERANCE * size) return worst;
    die("the self-test failed: %s differs by %g; do not use this library here", found->port.name, (double)worst);
  }
  size_t best = largest(own, count), wanted = largest(other, count);
  if (!(worst <= TOLERANCE) || best != wanted)
    die("the self-test failed: %s differ by %g (class %zu, wanted %zu); do not use this library here",
        found->port.name, (double)worst, best, wanted);
  return worst;
}

float compare_outputs(const char *path, const port_array *found, int64_t images) {
  port_array expected = {found->port, path, NULL, found->bytes};
  int64_t count = -1, n = -1;
  read_array(&expected, &count, &n);
  if (found->port.per_image && count != images) die("%s: it does not belong to this model", path);
  float worst = 0;
  for (int64_t i = 0; i < (found->port.per_image ? images : 1); i++) {
    const unsigned char *own = found->data + (size_t)i * found->bytes, *other = expected.data + (size_t)i * found->bytes;
    if (found->port.dtype == VITC_FLOAT32) {
      float apart = compare_floats(found, (const void *)own, (const void *)other, found->bytes / sizeof(float));
      if (!(apart <= worst)) worst = apart;
    } else if (memcmp(own, other, found->bytes))
      die("the self-test failed: %s is another; do not use this library here", found->port.name);
  }
  free(expected.data);
  return worst;
}
