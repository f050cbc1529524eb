/* Decodes the cases of a file with the decoder of an artefact; numbers are printed exactly. */
#include <stdio.h>
#include <stdlib.h>

#include "vitc_detect.h"

static void need(FILE *file, void *to, size_t bytes) {
  if (fread(to, 1, bytes, file) != bytes) exit(9);
}

static const float *maps(FILE *file, size_t count) {
  float *values = malloc(count * sizeof *values + 1);
  if (!values) exit(8);
  need(file, values, count * sizeof *values);
  return values;
}

int main(int argc, char **argv) {
  FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
  int32_t cases, head[7];
  if (!file) return 7;
  need(file, &cases, sizeof cases);
  for (; cases; cases--) {
    vitc_level levels[VITC_MAX_LEVELS];
    vitc_detect_options options = {.size = sizeof options};
    need(file, head, sizeof head);
    need(file, &options.score, sizeof options.score);
    need(file, &options.overlap, sizeof options.overlap);
    int32_t number = head[0], classes = head[1], room = head[6], count = -1;
    options.candidates = head[4];
    options.most = head[5];
    for (int32_t i = 0; i < number; i++) {
      int32_t sides[3];
      need(file, sides, sizeof sides);
      size_t places = (size_t)sides[1] * (size_t)sides[2];
      levels[i] = (vitc_level){sides[0], sides[1], sides[2], NULL, NULL, NULL};
      levels[i].classes = maps(file, places * (size_t)classes);
      levels[i].boxes = maps(file, places * 4);
      levels[i].centreness = maps(file, places);
    }
    vitc_box *boxes = calloc((size_t)room + 1, sizeof *boxes);
    if (!boxes) return 8;
    boxes[room].label = -7;
    int status = (int)vitc_decode(levels, number, classes, head[2], head[3], &options, boxes, room, &count);
    if (status || boxes[room].label != -7) return 6;
    printf("%d\n", (int)count);
    for (int32_t i = 0; i < count && i < room; i++)
      printf("%d %a %a %a %a %a\n", (int)boxes[i].label, boxes[i].score, boxes[i].x0, boxes[i].y0, boxes[i].x1, boxes[i].y1);
  }
  return 0;
}
