/* vitc-run: pictures in PPM files, and what a detector finds in one. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vitc_runner.h"

enum { LONGEST_SIDE = 65535 };

/* A number of the head of a PPM, behind spaces and comments. */
static int32_t header_number(FILE *file, const char *path) {
  int letter = getc(file);
  for (; isspace(letter) || letter == '#'; letter = getc(file))
    if (letter == '#')
      while (letter != '\n' && letter != EOF) letter = getc(file);
  int32_t value = 0, digits = 0;
  for (; isdigit(letter) && value <= LONGEST_SIDE; letter = getc(file), digits++) value = 10 * value + (letter - '0');
  if (!digits || value > LONGEST_SIDE || !isspace(letter)) die("%s: no PPM of 8 bits a colour (P6)", path);
  return value;
}

unsigned char *read_ppm(const char *path, int32_t *height, int32_t *width) {
  FILE *file = fopen(path, "rb");
  if (!file) die("%s: %s", path, strerror(errno));
  if (getc(file) != 'P' || getc(file) != '6') die("%s: no PPM of 8 bits a colour (P6)", path);
  *width = header_number(file, path);
  *height = header_number(file, path);
  if (header_number(file, path) != 255 || !*width || !*height) die("%s: no PPM of 8 bits a colour (P6)", path);
  size_t row = 3 * (size_t)*width, rows = (size_t)*height;
  unsigned char *pixels = rows > SIZE_MAX / row ? NULL : malloc(row * rows);
  if (!pixels) die("not enough memory");
  if (fread(pixels, row, rows, file) != rows) die("%s: it is cut off", path);
  fclose(file);
  return pixels;
}

static void print_text(const char *text) {
  putchar('"');
  for (; *text; text++) {
    unsigned char letter = (unsigned char)*text;
    if (letter == '"' || letter == '\\') printf("\\%c", letter);
    else if (letter < ' ') printf("\\u%04x", letter);
    else putchar(letter);
  }
  putchar('"');
}

void print_boxes(const detector *found, vitc_model *model, const char *path, float score) {
  int32_t height, width, count;
  unsigned char *pixels = read_ppm(path, &height, &width);
  enum { MOST = 100 };
  vitc_box boxes[MOST];
  const vitc_detect_options options = {sizeof options, score, 0.6f, 1000, MOST};
  vitc_status status = found->detect(model, pixels, height, width, 0, &options, boxes, MOST, &count);
  if (status) die("%s: %s", path, found->status_text(status));
  free(pixels);
  printf("{\"picture\": {\"width\": %d, \"height\": %d}, \"boxes\": [", (int)width, (int)height);
  for (int32_t i = 0; i < count; i++) {
    const vitc_box *box = &boxes[i];
    const char *name = found->label(box->label);
    printf("%s{\"class\": %d, \"label\": ", i ? ", " : "", (int)box->label);
    if (name) print_text(name);
    else printf("null");
    printf(", \"score\": %.9g, \"box\": [%.9g, %.9g, %.9g, %.9g]}", (double)box->score, (double)box->x0, (double)box->y0,
           (double)box->x1, (double)box->y1);
  }
  printf("]}\n");
}
