/* Plugin of qemu's user emulation that counts the instructions a program executes.

   Built on the spot for the machine that runs qemu; the count goes to the file named by out=FILE. The prototypes are those of
   qemu-plugin.h, written by hand because few systems have that header, and weak because qemu brings the functions. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define FROM_QEMU __attribute__((weak)) extern

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb; /* a straight run of instructions */
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

FROM_QEMU void qemu_plugin_register_vcpu_tb_trans_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
FROM_QEMU void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *,
                                                    void (*)(unsigned int, void *),
                                                    enum qemu_plugin_cb_flags, void *);
FROM_QEMU size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
FROM_QEMU void qemu_plugin_register_atexit_cb(qemu_plugin_id_t,
                                              void (*)(qemu_plugin_id_t, void *), void *);

/* Each qemu takes a range of versions of its interface; the four functions above are in all of them. */
EXPORT int qemu_plugin_version = VITC_PLUGIN_VERSION;

static uint64_t executed;
static char path[4096];

static void on_execution(unsigned int cpu, void *instructions) {
  (void)cpu;
  __atomic_fetch_add(&executed, (uint64_t)(uintptr_t)instructions, __ATOMIC_RELAXED);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_cb(block, on_execution, QEMU_PLUGIN_CB_NO_REGS,
                                       (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void on_exit_of_program(qemu_plugin_id_t id, void *unused) {
  (void)id;
  (void)unused;
  FILE *file = fopen(path, "w");
  if (!file) return;
  fprintf(file, "%llu\n", (unsigned long long)executed);
  fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; i++)
    if (strncmp(argv[i], "out=", 4) == 0 && strlen(argv[i] + 4) < sizeof path)
      strcpy(path, argv[i] + 4);
  if (!path[0] || !qemu_plugin_register_vcpu_tb_exec_cb) return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, on_exit_of_program, NULL);
  return 0;
}
