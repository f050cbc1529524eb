/* The boxes of a picture, with an artefact of `vitc compile` that holds a detector (docs/tasks.md).
 *
 *     cc detect.c DIR/libvitc_model.a -IDIR -pthread -o detect && ./detect photo.rgb 480 640 */
#include <stdio.h>
#include <stdlib.h>

#include "vitc_detect.h"

int main(int argc, char **argv) {
  if (argc != 4) return fputs("detect PICTURE.rgb HEIGHT WIDTH: 8 bits a colour, rows from above\n", stderr), 2;
  int height = atoi(argv[2]), width = atoi(argv[3]);
  size_t bytes = 3 * (size_t)height * (size_t)width;
  unsigned char *rgb = malloc(bytes);
  FILE *file = fopen(argv[1], "rb");
  if (!rgb || !file || fread(rgb, 1, bytes, file) != bytes) return fputs("no such picture\n", stderr), 1;
  fclose(file);

  vitc_model *model = NULL;
  vitc_box boxes[100];
  int32_t count = 0;
  vitc_detect_options options = {sizeof options, 0.2f, 0.6f, 1000, 100};
  vitc_status status = vitc_create(1, &model);
  if (!status) status = vitc_detect(model, rgb, height, width, 0, &options, boxes, 100, &count);
  if (status) fprintf(stderr, "%s\n", vitc_status_text(status));
  for (int32_t i = 0; i < count; i++)
    printf("%s %.3f: %.1f %.1f to %.1f %.1f\n", vitc_label(boxes[i].label), boxes[i].score, boxes[i].x0, boxes[i].y0,
           boxes[i].x1, boxes[i].y1);
  vitc_destroy(model);
  free(rgb);
  return (int)status;
}
