/* A plugin of qemu's user mode: how often every block of translated instructions runs, between any two looks at the clock.
 *
 *   cc -O2 -shared -fPIC -o block_counts.so block_counts.c
 *   qemu-aarch64 -plugin ./block_counts.so,out=FILE PROGRAM
 *
 * FILE.blocks gets a line for each block that is translated: its instructions as hexadecimal words. FILE.counts gets a record
 * for each call of clock_gettime: as 64-bit words the clock, the time in nanoseconds after the record was made, how many pairs
 * follow, and pairs of a block's number (its line) and how often it ran since the record before. ONNX Runtime's profiler looks
 * at the clock when a node begins and when it ends.
 *
 * What is declared here is qemu's interface of plugins, version 1.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORTED __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*Translated)(uint64_t plugin, struct qemu_plugin_tb* block);
typedef void (*Called)(uint64_t plugin, unsigned processor, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                       uint64_t e, uint64_t f, uint64_t g, uint64_t h);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin, Translated call);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t plugin, Called call);
void qemu_plugin_register_atexit_cb(uint64_t plugin, void (*call)(uint64_t plugin, void* given), void* given);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb* block, int add, void* counter, uint64_t one);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* block, size_t index);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn* instruction);

EXPORTED int qemu_plugin_version = 1;

enum { kMostBlocks = 1 << 22, kAddWord = 0, kClockGetTime = 113 };
static uint64_t counts[kMostBlocks], before[kMostBlocks];
static uint64_t pairs[2 * kMostBlocks];
static uint64_t blocks;
static FILE *block_file, *count_file;

static void OnTranslated(uint64_t plugin, struct qemu_plugin_tb* block) {
  (void)plugin;
  if (blocks == kMostBlocks) {
    fprintf(stderr, "block_counts: more than %d blocks\n", kMostBlocks);
    exit(1);
  }
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); ++i) {
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof(word));
    fprintf(block_file, "%s%08" PRIx32, i == 0 ? "" : " ", word);
  }
  fputc('\n', block_file);
  qemu_plugin_register_vcpu_tb_exec_inline(block, kAddWord, &counts[blocks], 1);
  ++blocks;
}

static void OnCall(uint64_t plugin, unsigned processor, int64_t number, uint64_t clock, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)plugin, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number != kClockGetTime || processor != 0) return;
  uint64_t found = 0;
  for (uint64_t i = 0; i < blocks; ++i) {
    if (counts[i] == before[i]) continue;
    pairs[2 * found] = i;
    pairs[2 * found + 1] = counts[i] - before[i];
    before[i] = counts[i];
    ++found;
  }
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const uint64_t head[3] = {clock, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, found};
  fwrite(head, sizeof(head), 1, count_file);
  fwrite(pairs, 2 * sizeof(uint64_t), found, count_file);
}

static void OnExit(uint64_t plugin, void* given) {
  (void)plugin, (void)given;
  fclose(block_file);
  fclose(count_file);
}

static FILE* Opened(const char* name, const char* ending) {
  char path[4096];
  snprintf(path, sizeof(path), "%s.%s", name, ending);
  FILE* file = fopen(path, "wb");
  if (file == NULL) fprintf(stderr, "block_counts: cannot write %s\n", path);
  return file;
}

EXPORTED int qemu_plugin_install(uint64_t plugin, const void* facts, int count, char** arguments) {
  (void)facts;
  if (count != 1 || strncmp(arguments[0], "out=", 4) != 0) {
    fprintf(stderr, "block_counts: expected out=FILE\n");
    return 1;
  }
  block_file = Opened(arguments[0] + 4, "blocks");
  count_file = Opened(arguments[0] + 4, "counts");
  if (block_file == NULL || count_file == NULL) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(plugin, OnTranslated);
  qemu_plugin_register_vcpu_syscall_cb(plugin, OnCall);
  qemu_plugin_register_atexit_cb(plugin, OnExit, NULL);
  return 0;
}
