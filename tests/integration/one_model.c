/* The class that a model finds in a picture, and its logits. */
#include <stdio.h>
#include <vitc_model.h>

int main(int count, char **arguments) {
  static unsigned char rgb[3 * 41 * 57];
  static float input[3 * 32 * 32], logits[10];
  vitc_model *model;
  FILE *file = count > 1 ? fopen(arguments[1], "rb") : NULL;
  if (!file || fread(rgb, 1, sizeof rgb, file) != sizeof rgb) return 2;
  fclose(file);
  vitc_status status = vitc_create(1, &model);
  if (!status) status = vitc_preprocess(rgb, 41, 57, 0, input);
  if (!status) status = vitc_run(model, input, logits);
  if (status) return puts(vitc_status_text(status)), 1;
  int best = 0;
  for (int i = 1; i < 10; i++)
    if (logits[i] > logits[best]) best = i;
  printf("%s", vitc_label(best));
  for (int i = 0; i < 10; i++) printf(" %a", (double)logits[i]);
  printf("\n");
  vitc_destroy(model);
  return 0;
}
