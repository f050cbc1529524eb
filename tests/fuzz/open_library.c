/* Opens a library with the loader of vitc-run and looks its functions up, without calling them. */
#include <stdio.h>
#include <stdlib.h>

#include "vitc_loader.h"

int main(int argc, char **argv) {
  static char stub;
  const vitc_symbol imports[] = {
      {"calloc", &stub},         {"free", &stub},         {"getauxval", &stub}, {"malloc", &stub},
      {"memcmp", &stub},         {"memcpy", &stub},       {"memmove", &stub},   {"memset", &stub},
      {"posix_memalign", &stub}, {"pthread_create", &stub}, {"pthread_join", &stub},
      {"sched_yield", &stub},    {"strcmp", &stub},       {"strlen", &stub},    {"syscall", &stub},
      {NULL, NULL},
  };
  for (int i = 1; i < argc; i++) {
    char error[512] = "";
    vitc_library *library = vitc_library_open(argv[i], NULL, imports, error, sizeof error);
    if (!library) {
      if (!error[0]) abort();
      printf("%s\n", error);
      continue;
    }
    printf("%s\n", vitc_library_symbol(library, "vitc_create") ? "whole" : "no vitc_create");
  }
  return 0;
}
