// Two models of one program: the classes that they find in a picture, and their logits.
#include <cstdio>
#include <vector>

#include <vitc_model.hpp>

#include <cats.h>
#include <dogs.h>

static void show(const vitc::Library &library, const std::vector<std::uint8_t> &rgb, std::int32_t height, std::int32_t width) {
  vitc::Model model{2, library};
  vitc::Model moved = std::move(model);
  const std::vector<float> logits = moved.run(moved.preprocess(rgb, height, width));
  std::printf("%s", moved.label(vitc::best(logits)));
  for (float logit : logits) std::printf(" %a", static_cast<double>(logit));
  std::printf("\n");
}

int main(int, char **arguments) {
  std::vector<std::uint8_t> rgb(3 * 41 * 57);
  std::FILE *file = std::fopen(arguments[1], "rb");
  if (!file || std::fread(rgb.data(), 1, rgb.size(), file) != rgb.size()) return 2;
  std::fclose(file);
  show(vitc::cats, rgb, 41, 57);
  show(vitc::dogs, rgb, 41, 57);
  try {
    vitc::Model{100, vitc::cats};
  } catch (const vitc::Error &error) {
    std::printf("%d %s\n", error.status(), error.what());
  }
  return 0;
}
