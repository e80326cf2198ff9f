/*
 * A stand-in for libedgetpu: the same exports, no hardware, faults on command.
 *
 * It takes over operators named "edgetpu-custom-op" as the true library does. STANDIN_CONTROL names
 * a file that is read again at every call; its words say how to behave:
 *
 *   usb=N pci=N             devices that are plugged in (default: one on USB)
 *   busy                    every device is in use: no delegate
 *   runtime=N               runtime version (default 14)
 *   old                     the model needs a newer runtime: preparing fails
 *   abort_list, hang_list   listing devices ends the process, or never returns
 *   abort_open, hang_open   so does creating the delegate
 *   abort, hang             so does invoking; an abort has the words of a USB error
 *   fail                    invoking fails
 *   left, top               that half of the result is garbage
 *
 * A device that is unplugged aborts at the next invocation. One process at a time has a device, as
 * with the hardware: a lock on "<control>.<device>". STANDIN_LOG names a file that gets a line for
 * every delegate that opened a device, with its options, and for every hang.
 *
 * True answers come from STANDIN_TWIN, a Unix socket whose server runs the model's CPU twin: the
 * tensor's bytes go out, the result's come back. The structures are those of TensorFlow's
 * lite/core/c/common.h, which no wheel ships; only what is used here needs its right place.
 */

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef int Status; /* 0 is success, 1 failure */
typedef struct Context Context;
typedef struct Delegate Delegate;

typedef struct {
  int size;
  int data[];
} IntArray;

typedef struct {
  int type;
  char *data;
  IntArray *dims;
  struct {
    float scale;
    int32_t zero_point;
  } params;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  Delegate *delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  struct {
    int type;
    void *params;
  } quantization;
  const void *sparsity;
  const IntArray *dims_signature;
} Tensor;

typedef struct {
  IntArray *inputs;
  IntArray *outputs;
} Node;

typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  Status (*prepare)(Context *, Node *);
  Status (*invoke)(Context *, Node *);
  const char *(*profiling_string)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *registration_external;
  void *async_kernel;
  uint64_t inplace_operator;
} Registration;

struct Context {
  size_t tensors_size;
  Status (*GetExecutionPlan)(Context *, IntArray **);
  Tensor *tensors;
  void *impl;
  Status (*ResizeTensor)(Context *, Tensor *, IntArray *);
  void (*ReportError)(Context *, const char *, ...);
  Status (*AddTensors)(Context *, int, int *);
  Status (*GetNodeAndRegistration)(Context *, int, Node **, Registration **);
  Status (*ReplaceNodeSubsetsWithDelegateKernels)(
      Context *, Registration, const IntArray *, Delegate *);
};

struct Delegate {
  void *data;
  Status (*Prepare)(Context *, Delegate *);
  Status (*CopyFromBufferHandle)(Context *, Delegate *, int, Tensor *);
  Status (*CopyToBufferHandle)(Context *, Delegate *, int, Tensor *);
  void (*FreeBufferHandle)(Context *, Delegate *, int *);
  int64_t flags;
  void *opaque_delegate_builder;
};

struct edgetpu_device {
  int type; /* 0 PCI, 1 USB */
  const char *path;
};

/* -- the control file ------------------------------------------------------------------------- */

static void read_control(char *text, size_t size) {
  const char *path = getenv("STANDIN_CONTROL");
  FILE *file = path ? fopen(path, "r") : NULL;
  size_t length = file ? fread(text, 1, size - 1, file) : 0;
  text[length] = '\0';
  if (file) fclose(file);
}

/* Finds "word" or "word=N"; returns N (1 where there is none), or otherwise if it is absent. */
static int control(const char *word, int otherwise) {
  char text[512], *rest = text, *item;
  read_control(text, sizeof text);
  size_t length = strlen(word);
  while ((item = strsep(&rest, " \t\n")) != NULL) {
    if (strncmp(item, word, length) != 0) continue;
    if (item[length] == '\0') return 1;
    if (item[length] == '=') return atoi(item + length + 1);
  }
  return otherwise;
}

static void write_log(const char *line) {
  const char *path = getenv("STANDIN_LOG");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file == NULL) return;
  fprintf(file, "%s\n", line);
  fclose(file);
}

static void hang(void) {
  write_log("hangs");
  for (;;) pause();
}

static void die(void) {
  fprintf(stderr,
          "F driver/usb/usb_driver.cc:1148] HandleQueuedBulkIn transfer in failed. Unknown: "
          "USB transfer error 1 [LibUsbDataInCallback]\n");
  abort();
}

/* -- the kernel ------------------------------------------------------------------------------- */

static bool transfer(int fd, char *data, size_t size, bool out) {
  while (size > 0) {
    ssize_t count = out ? write(fd, data, size) : read(fd, data, size);
    if (count <= 0) return false;
    data += count;
    size -= count;
  }
  return true;
}

static bool ask_twin(const Tensor *in, Tensor *out) {
  const char *path = getenv("STANDIN_TWIN");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (path == NULL || strlen(path) >= sizeof address.sun_path) return false;
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool done = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
              transfer(fd, in->data, in->bytes, true) &&
              transfer(fd, out->data, out->bytes, false);
  close(fd);
  return done;
}

/* Overwrites part of [1, h, w, C] with noise. */
static void corrupt(Tensor *tensor, int rows, int columns) {
  int height = tensor->dims->data[1], width = tensor->dims->data[2];
  size_t cell = tensor->bytes / ((size_t)height * width);
  unsigned noise = 1;
  for (int y = 0; y < height / rows; y++)
    for (int x = 0; x < width / columns; x++)
      for (size_t k = 0; k < cell; k++) {
        noise = noise * 1664525u + 1013904223u;
        tensor->data[((size_t)y * width + x) * cell + k] = (char)(noise >> 24);
      }
}

static Status prepare(Context *context, Node *node) {
  (void)node;
  if (control("old", 0)) {
    context->ReportError(
        context,
        "Failed to prepare for TPU. Failed precondition: Package requires runtime version (14), "
        "which is newer than this runtime version (%d).",
        control("runtime", 13));
    return 1;
  }
  return 0;
}

static Status invoke(Context *context, Node *node) {
  Tensor *in = &context->tensors[node->inputs->data[0]];
  Tensor *out = &context->tensors[node->outputs->data[0]];
  if (control("hang", 0)) hang();
  if (control("abort", 0) || control("usb", 1) + control("pci", 0) == 0) die();
  if (control("fail", 0)) {
    context->ReportError(context, "Failed to execute request.");
    return 1;
  }
  if (!ask_twin(in, out)) {
    context->ReportError(context, "stand-in: no twin answers at STANDIN_TWIN.");
    return 1;
  }
  if (control("left", 0)) corrupt(out, 1, 2);
  if (control("top", 0)) corrupt(out, 2, 1);
  return 0;
}

/* -- the delegate ----------------------------------------------------------------------------- */

static Status prepare_delegate(Context *context, Delegate *delegate) {
  IntArray *plan, *chosen;
  if (context->GetExecutionPlan(context, &plan) != 0) return 1;
  chosen = calloc(1, sizeof *chosen + plan->size * sizeof(int));
  for (int i = 0; i < plan->size; i++) {
    Node *node;
    Registration *registration;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &registration) != 0)
      return 1;
    if (registration->custom_name != NULL &&
        strcmp(registration->custom_name, "edgetpu-custom-op") == 0)
      chosen->data[chosen->size++] = plan->data[i];
  }
  Registration kernel = {
      .prepare = prepare,
      .invoke = invoke,
      .custom_name = "EdgeTpuDelegateForCustomOp",
      .version = 1,
  };
  Status status =
      context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, chosen, delegate);
  free(chosen);
  return status;
}

/* Locks a device that is plugged in and free; returns the lock or -1. */
static int open_device(const char *kind, int index) {
  char path[512];
  if (index >= control(kind, strcmp(kind, "usb") == 0)) return -1;
  if (control("busy", 0)) return -1;
  snprintf(path, sizeof path, "%s.%s%d", getenv("STANDIN_CONTROL"), kind, index);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

/* Takes "usb:N" and "pci:N", which is how we name devices; the true library takes more. */
static int open_named(const char *device) {
  const char *colon = strchr(device, ':');
  if (colon == NULL || colon - device != 3) return -1;
  return open_device(strncmp(device, "pci", 3) == 0 ? "pci" : "usb", atoi(colon + 1));
}

EXPORT Delegate *tflite_plugin_create_delegate(
    char **keys, char **values, size_t count, void (*report_error)(const char *)) {
  const char *device = "";
  (void)report_error; /* the true library never calls it */
  for (size_t i = 0; i < count; i++)
    if (strcmp(keys[i], "device") == 0) device = values[i];
  if (control("hang_open", 0)) hang();
  if (control("abort_open", 0)) die();
  int lock = open_named(device);
  if (lock < 0) return NULL;
  char line[512] = "opened";
  for (size_t i = 0; i < count; i++) {
    size_t length = strlen(line);
    snprintf(line + length, sizeof line - length, " %s=%s", keys[i], values[i]);
  }
  write_log(line);
  Delegate *delegate = calloc(1, sizeof *delegate);
  delegate->data = (void *)(intptr_t)lock;
  delegate->Prepare = prepare_delegate;
  delegate->flags = 1; /* allow dynamic tensors: otherwise every op is prepared before us */
  return delegate;
}

EXPORT void tflite_plugin_destroy_delegate(Delegate *delegate) {
  if (delegate == NULL) return; /* Python does that after a failed create */
  close((int)(intptr_t)delegate->data);
  free(delegate);
}

/* -- listing ---------------------------------------------------------------------------------- */

EXPORT struct edgetpu_device *edgetpu_list_devices(size_t *count) {
  int pci = control("pci", 0), usb = control("usb", 1);
  if (control("abort_list", 0)) die();
  if (control("hang_list", 0)) hang();
  *count = pci + usb;
  if (*count == 0) return NULL;
  struct edgetpu_device *devices = calloc(*count, sizeof *devices);
  for (int i = 0; i < pci + usb; i++) {
    char path[64];
    if (i < pci)
      snprintf(path, sizeof path, "/dev/apex_%d", i);
    else
      snprintf(path, sizeof path, "/sys/bus/usb/devices/2-%d", i - pci + 1);
    devices[i].type = i < pci ? 0 : 1;
    devices[i].path = strdup(path);
  }
  return devices;
}

/* The paths stay: their number is not told, and a test's process is short. */
EXPORT void edgetpu_free_devices(struct edgetpu_device *devices) { free(devices); }

EXPORT const char *edgetpu_version(void) {
  static char text[128];
  snprintf(text, sizeof text, "BuildLabel(stand-in), RuntimeVersion(%d)", control("runtime", 14));
  return text;
}

EXPORT void edgetpu_verbosity(int verbosity) { (void)verbosity; }
