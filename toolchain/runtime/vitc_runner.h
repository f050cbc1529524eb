/* What the files of vitc-run share. */
#ifndef VITC_RUNNER_H
#define VITC_RUNNER_H

#include <stddef.h>
#include <stdint.h>

#include "vitc_detect.h"
#include "vitc_model.h"
#include "vitc_sha256.h"

enum { PATH_BYTES = 4096 };

/* vitc_run.c: one sentence, and exit code 1. */
#if defined(__GNUC__)
__attribute__((noreturn, format(printf, 1, 2)))
#endif
void die(const char *format, ...);

/* A port and its array: that of all images, or of the whole run. */
typedef struct {
  vitc_port port;
  const char *path; /* of the .npy file; null where none is wanted */
  unsigned char *data;
  size_t bytes; /* of one image, or of the whole run */
} port_array;

/* vitc_arrays.c: bytes of a port's array, without the axis of images. */
size_t array_bytes(const vitc_port *port, int64_t n);

/* Read the file of an input. `images` and `n` are -1 until an input has said them; the others must agree. */
void read_array(port_array *array, int64_t *images, int64_t *n);

/* Refuse what no preparation of an input gives, as `vitc run` does. */
void need_finite(const port_array *array, int64_t images, int64_t n);

/* Write an output: a file that is whole or not there; what is no plain file (a device, a pipe, a link) is written through. */
void write_array(const port_array *array, int64_t images, int64_t n);

/* vitc_self_test.c: what a first run on a fresh workspace leaves in each buffer. What lies between and behind the values is
 * the same in every such run, so a buffer is compared whole. */
typedef struct {
  void *file;       /* a FILE to write to, or null */
  const char *path; /* of the list to compare with */
  const char *at;   /* its next line: a digest, two spaces, a name; null for no list */
  int32_t taps;
} digest_list;

/* An observer, whose user is a digest_list. */
void take_digest(void *user, int32_t image, int32_t step, const char *name, const void *data, size_t bytes);

typedef struct {
  const char *library;
  char *manifest;
  char recorded[SHA256_TEXT]; /* the digest that the manifest has for the library */
} self_test;

/* Read manifest.json beside a library. */
void open_self_test(self_test *test, const char *library);

/* The stored images of an entry, `prefix` being its name where there are several, else null: whether there are any, and with
 * them their list of digests, if the manifest has one. */
int has_self_test(const self_test *test, const char *prefix, int32_t inputs, digest_list *list);

/* Path of the array of the port with a number, of `count` inputs or outputs. */
char *self_test_path(const self_test *test, const char *prefix, const char *kind, int32_t number, int32_t count);

/* Compare with what ONNX Runtime gave when the model was compiled; the largest difference of a float. */
float compare_outputs(const char *path, const port_array *found, int64_t images);

/* vitc_boxes.c: the pixels of a picture, red, green, blue, row by row. */
unsigned char *read_ppm(const char *path, int32_t *height, int32_t *width);

/* What a library with a detector has beside the rest; `detect` is null in others. */
typedef struct {
  vitc_status (*detect)(vitc_model *, const uint8_t *, int32_t, int32_t, size_t, const vitc_detect_options *, vitc_box *,
                        int32_t, int32_t *);
  const char *(*label)(int32_t);
  const char *(*status_text)(vitc_status);
} detector;

/* Print the boxes of a picture in a PPM file as JSON, those whose score is larger than `score`. */
void print_boxes(const detector *found, vitc_model *model, const char *path, float score);

#endif
