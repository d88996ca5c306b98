/* A stand-in for WNBD's libwnbd.dll and the driver behind it, for tests under Wine: no disk appears.
 *
 * It keeps the contract of the published headers (include/wnbd.h, include/wnbd_ioctl.h of WNBD 0.7) as far as a server of
 * disks sees it: what is called when and on which threads, that a request's buffer is the callback's alone, what answers are
 * taken. What Windows would ask of the disk stands in a script; what came of it goes into a log. A line of the log that
 * begins with "fault" tells of a broken contract.
 *
 *   STANDIN_WNBD_LOG           the log (a path of Windows')
 *   STANDIN_WNBD_SCRIPT        the script, a command a line, run one after the other once the disk is shown:
 *     read BLOCK COUNT         write BLOCK COUNT SEED      durable BLOCK COUNT SEED (a write with FUA)
 *     flush                    unmap BLOCK COUNT           anchor BLOCK COUNT (an unmap that is not offered)
 *     reserve (a persistent reservation, not offered)      abort BLOCK COUNT (a read that Windows gives up)
 *     later BLOCK COUNT (a read that nobody waits for)
 *     dump FILE (all blocks, 16 reads at a time)           await FILE (goes on when it is there)
 *     refuse (polite removal is refused from now on)       disconnect (somebody else removes the disk)
 *   STANDIN_WNBD_CREATE_ERROR  what WnbdCreate fails with
 *
 * x86_64-w64-mingw32-gcc -shared -O2 -s -o libwnbd.dll standin_libwnbd.c */
#define _WIN32_WINNT 0x0A00
#include <windows.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __declspec(dllexport)
#define MAX_TRANSFER (2u << 20)
#define DISK_NUMBER 7
#define DEPTH 16

enum { READ_REQ = 1, WRITE_REQ = 2, FLUSH_REQ = 3, UNMAP_REQ = 4, RESERVE_REQ = 6 };

typedef struct { uint8_t scsi, key, asc, ascq; uint64_t information, csi; uint32_t sks, fru : 8, valid : 1; } Status;
typedef struct { uint64_t handle; uint32_t type; Status status; uint8_t reserved[32]; } Response;
typedef struct { uint64_t block; uint32_t count, reserved; } Range;
typedef struct { uint32_t hard : 1, fallback : 1, reserved : 30; uint32_t timeout, retry; uint8_t rest[64]; } RemoveOptions;
typedef struct { uint32_t read_only : 1, flush : 1, fua : 1, unmap : 1, anchor : 1, kernel : 1, reserve : 1, naa : 1, nbd : 1, rest : 23; } Flags;
typedef struct {
  char host[256]; uint32_t port; char export_name[256]; uint32_t flags; uint8_t reserved[32];
} Nbd;
typedef struct {
  char name[256], serial[256], owner[16]; Flags flags; uint64_t blocks; uint32_t block_size, max_unmap; int pid;
  Nbd nbd; uint8_t naa[16], reserved[240];
} Properties;
_Static_assert(sizeof(Status) == 32, "WNBD_STATUS");
_Static_assert(sizeof(Response) == 80, "WNBD_IO_RESPONSE");
_Static_assert(sizeof(Range) == 16, "WNBD_UNMAP_DESCRIPTOR");
_Static_assert(sizeof(RemoveOptions) == 76, "WNBD_REMOVE_OPTIONS");
_Static_assert(sizeof(Flags) == 4, "WNBD_FLAGS");
_Static_assert(sizeof(Nbd) == 552, "NBD_CONNECTION_PROPERTIES");
_Static_assert(sizeof(Properties) == 1368, "WNBD_PROPERTIES");

typedef struct Disk Disk;
typedef struct {
  void (*read)(Disk *, uint64_t, void *, uint64_t, uint32_t, uint8_t);
  void (*write)(Disk *, uint64_t, void *, uint64_t, uint32_t, uint8_t);
  void (*flush)(Disk *, uint64_t, uint64_t, uint32_t);
  void (*unmap)(Disk *, uint64_t, Range *, uint32_t);
  void (*reserve_in)(Disk *, uint64_t, uint8_t);
  void (*reserve_out)(Disk *, uint64_t, uint8_t, uint8_t, uint8_t, void *, uint32_t);
  void *reserved[13];
} Interface;
_Static_assert(sizeof(Interface) == 152, "WNBD_INTERFACE");

typedef struct Request {
  struct Request *next;
  uint64_t handle, block;
  uint32_t type, count;
  uint8_t fua, anchor, abort, is_done;
  uint8_t *data;
  uint32_t size;
  Status status;
} Request;

struct Disk {
  Properties properties;
  const Interface *calls;
  void *context;
  Request *pending, *submitted;
  uint64_t handles;
  HANDLE threads[64], script;
  uint32_t count;
  volatile LONG running, shown;
  uint8_t started, disconnecting, stopped, refuses;
};

static CRITICAL_SECTION lock;
static CONDITION_VARIABLE changed;
static Disk *the_disk;
static FILE *log_file;

static void say(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  EnterCriticalSection(&lock);
  if (log_file) {
    vfprintf(log_file, format, arguments);
    fputc('\n', log_file);
    fflush(log_file);
  }
  LeaveCriticalSection(&lock);
  va_end(arguments);
}

static const char *kind(uint32_t type) {
  return type == READ_REQ ? "read" : type == WRITE_REQ ? "write" : type == FLUSH_REQ ? "flush" : type == UNMAP_REQ ? "unmap" : "reserve";
}

static uint64_t hash(const uint8_t *data, uint32_t size) { /* FNV-1a */
  uint64_t sum = 0xcbf29ce484222325u;
  for (uint32_t at = 0; at < size; at++) sum = (sum ^ data[at]) * 0x100000001b3u;
  return sum;
}

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, void *reserved) {
  (void)module, (void)reserved;
  if (reason == DLL_PROCESS_ATTACH) {
    InitializeCriticalSection(&lock);
    InitializeConditionVariable(&changed);
    const char *path = getenv("STANDIN_WNBD_LOG");
    log_file = path ? fopen(path, "ab") : NULL;
  }
  return TRUE;
}

/* The driver's side: requests are queued, fetched by dispatcher threads, submitted, answered. */

static int queue(Disk *disk, Request *request) {
  EnterCriticalSection(&lock);
  int is_open = disk->started && !disk->disconnecting;
  if (is_open) {
    request->handle = ++disk->handles;
    Request **end = &disk->pending;
    while (*end) end = &(*end)->next;
    *end = request;
    WakeAllConditionVariable(&changed);
  } else {
    request->is_done = 1;
    request->status.scsi = 0xff;
  }
  LeaveCriticalSection(&lock);
  return is_open;
}

static void wait_for(Request *request) {
  EnterCriticalSection(&lock);
  while (!request->is_done) SleepConditionVariableCS(&changed, &lock, INFINITE);
  LeaveCriticalSection(&lock);
}

static Request *take(Request **list, uint64_t handle) {
  for (; *list; list = &(*list)->next)
    if (!handle || (*list)->handle == handle) {
      Request *found = *list;
      *list = found->next;
      found->next = NULL;
      return found;
    }
  return NULL;
}

static Request *fetch(Disk *disk) {
  EnterCriticalSection(&lock);
  while (!disk->disconnecting && !disk->pending) SleepConditionVariableCS(&changed, &lock, INFINITE);
  Request *request = disk->disconnecting ? NULL : take(&disk->pending, 0);
  if (request && !request->abort) {
    request->next = disk->submitted;
    disk->submitted = request;
  }
  LeaveCriticalSection(&lock);
  return request;
}

static void disconnect(Disk *disk) {
  EnterCriticalSection(&lock);
  disk->disconnecting = 1;
  Request *request;
  while ((request = take(&disk->pending, 0)) || (request = take(&disk->submitted, 0))) {
    request->status.scsi = 0xff;
    request->is_done = 1;
  }
  WakeAllConditionVariable(&changed);
  LeaveCriticalSection(&lock);
}

EXPORT DWORD WnbdSendResponse(Disk *disk, const Response *response, void *data, uint32_t size);
EXPORT void WnbdSetSense(Status *status, uint8_t key, uint8_t asc) {
  status->scsi = 2, status->key = key, status->asc = asc, status->information = 0, status->valid = 0;
}

static void refuse(Disk *disk, Request *request, uint8_t asc) {
  Response response = {.handle = request->handle, .type = request->type};
  WnbdSetSense(&response.status, 5, asc);
  WnbdSendResponse(disk, &response, NULL, 0);
}

static void dispatch(Disk *disk, Request *request, uint8_t *buffer) {
  const Interface *calls = disk->calls;
  uint64_t handle = request->handle, block = request->block;
  uint32_t count = request->count;
  switch (request->type) {
  case READ_REQ: calls->read(disk, handle, buffer, block, count, request->fua); break;
  case WRITE_REQ:
    memcpy(buffer, request->data, request->size < MAX_TRANSFER ? request->size : MAX_TRANSFER);
    calls->write(disk, handle, buffer, block, count, request->fua);
    break;
  case FLUSH_REQ:
    if (!calls->flush || !disk->properties.flags.flush) refuse(disk, request, 0x20);
    else calls->flush(disk, handle, block, count);
    break;
  case UNMAP_REQ: {
    if (!calls->unmap || !disk->properties.flags.unmap) refuse(disk, request, 0x20);
    else if (request->anchor && !disk->properties.flags.anchor) refuse(disk, request, 0x24);
    else if (disk->properties.max_unmap < 1) refuse(disk, request, 0x26);
    else {
      Range range = {block, count, 0};
      memcpy(buffer, &range, sizeof range);
      calls->unmap(disk, handle, (Range *)buffer, 1);
    }
    break;
  }
  default:
    if (!calls->reserve_in || !disk->properties.flags.reserve) refuse(disk, request, 0x20);
    else calls->reserve_in(disk, handle, 0);
  }
}

static DWORD WINAPI dispatcher(void *parameter) {
  Disk *disk = parameter;
  uint8_t *buffer = malloc(MAX_TRANSFER);
  Request *request;
  while ((request = fetch(disk))) {
    int is_aborted = request->abort;
    dispatch(disk, request, buffer);
    memset(buffer, 0xdb, MAX_TRANSFER); /* whoever kept it would see this */
    if (is_aborted) {
      EnterCriticalSection(&lock);
      request->is_done = 1;
      WakeAllConditionVariable(&changed);
      LeaveCriticalSection(&lock);
    }
  }
  say("dispatcher ends");
  disk->stopped = 1;
  free(buffer);
  InterlockedDecrement(&disk->running);
  return 0;
}

/* What Windows asks for. */

static Request make(uint32_t type, uint64_t block, uint32_t count) {
  Request request = {.type = type, .block = block, .count = count};
  if (type == READ_REQ || type == WRITE_REQ) {
    request.size = count * 512;
    request.data = calloc(1, request.size + 1);
  }
  return request;
}

static void finish(Request *request, const char *name) {
  Status *s = &request->status;
  uint64_t sum = request->type == READ_REQ ? hash(request->data, request->size) : 0;
  say("done %s %llu %u status %02x/%02x/%02x/%02x hash %016llx", name, (unsigned long long)request->block, request->count,
      s->scsi, s->key, s->asc, s->ascq, (unsigned long long)sum);
  free(request->data);
}

static void run(Disk *disk, Request request, const char *name) {
  queue(disk, &request);
  wait_for(&request);
  finish(&request, name);
}

static void dump(Disk *disk, const char *path) {
  FILE *out = fopen(path, "wb");
  Request requests[DEPTH];
  uint32_t step = 256;
  uint64_t begun = 0, bad = 0, blocks = disk->properties.blocks;
  while (out && begun < blocks) {
    int count = 0;
    for (; count < DEPTH && begun < blocks; count++) {
      requests[count] = make(READ_REQ, begun, blocks - begun < step ? (uint32_t)(blocks - begun) : step);
      begun += requests[count].count;
    }
    for (int at = 0; at < count; at++) queue(disk, &requests[at]);
    for (int at = 0; at < count; at++) {
      wait_for(&requests[at]);
      bad += requests[at].status.scsi != 0;
      fwrite(requests[at].data, 1, requests[at].size, out);
      free(requests[at].data);
    }
  }
  if (out) fclose(out);
  say("done dump %llu failed %llu", (unsigned long long)begun, (unsigned long long)bad);
}

static void command(Disk *disk, const char *line) {
  char word[32] = "", path[1024] = "";
  unsigned long long block = 0;
  unsigned count = 0, seed = 0;
  sscanf(line, "%31s %llu %u %u", word, &block, &count, &seed);
  sscanf(line, "%*s %1023[^\r\n]", path);
  Request request;
  if (!strcmp(word, "read")) run(disk, make(READ_REQ, block, count), word);
  else if (!strcmp(word, "write") || !strcmp(word, "durable")) {
    request = make(WRITE_REQ, block, count);
    for (uint32_t at = 0; at < request.size; at++) request.data[at] = (uint8_t)(seed + at * 7 + (at >> 9));
    request.fua = word[0] == 'd';
    run(disk, request, word);
  } else if (!strcmp(word, "flush")) run(disk, make(FLUSH_REQ, 0, 0), word);
  else if (!strcmp(word, "unmap") || !strcmp(word, "anchor")) {
    request = make(UNMAP_REQ, block, count);
    request.anchor = word[0] == 'a';
    run(disk, request, word);
  } else if (!strcmp(word, "reserve")) run(disk, make(RESERVE_REQ, 0, 0), word);
  else if (!strcmp(word, "abort")) {
    request = make(READ_REQ, block, count);
    request.abort = 1;
    run(disk, request, word);
  } else if (!strcmp(word, "later")) {
    Request *kept = malloc(sizeof *kept);
    *kept = make(READ_REQ, block, count);
    queue(disk, kept);
    /* It is in flight when the next command comes. */
    EnterCriticalSection(&lock);
    while (disk->pending) SleepConditionVariableCS(&changed, &lock, 10);
    LeaveCriticalSection(&lock);
  } else if (!strcmp(word, "dump")) dump(disk, path);
  else if (!strcmp(word, "await")) {
    while (GetFileAttributesA(path) == INVALID_FILE_ATTRIBUTES) Sleep(20);
  } else if (!strcmp(word, "refuse")) disk->refuses = 1;
  else if (!strcmp(word, "disconnect")) disconnect(disk);
  else if (word[0]) say("fault: the script says %s", word);
}

static DWORD WINAPI script(void *parameter) {
  Disk *disk = parameter;
  EnterCriticalSection(&lock);
  while (!disk->shown && !disk->disconnecting) SleepConditionVariableCS(&changed, &lock, INFINITE);
  LeaveCriticalSection(&lock);
  const char *path = getenv("STANDIN_WNBD_SCRIPT");
  FILE *file = path ? fopen(path, "rb") : NULL;
  char line[1200];
  while (file && fgets(line, sizeof line, file)) command(disk, line);
  if (file) fclose(file);
  say("script done");
  return 0;
}

/* What the library has. */

static int is_zero(const void *bytes, size_t count) {
  for (size_t at = 0; at < count; at++)
    if (((const uint8_t *)bytes)[at]) return 0;
  return 1;
}

EXPORT DWORD WnbdCreate(const Properties *p, const Interface *calls, void *context, Disk **made) {
  const char *error = getenv("STANDIN_WNBD_CREATE_ERROR");
  if (error) return (DWORD)atoi(error);
  if (p->block_size != 512 || !p->blocks || !p->name[0] || !memchr(p->name, 0, 256) || !memchr(p->serial, 0, 256) ||
      p->flags.nbd || p->flags.kernel || p->flags.naa || p->flags.rest)
    return ERROR_INVALID_PARAMETER;
  if (!is_zero(&p->nbd, sizeof p->nbd) || !is_zero(p->naa, 16) || !is_zero(p->reserved, 240) ||
      !is_zero(calls->reserved, sizeof calls->reserved))
    say("fault: what is reserved is not zero");
  if (the_disk && !strcmp(the_disk->properties.name, p->name)) return ERROR_ALREADY_EXISTS;
  Disk *disk = calloc(1, sizeof *disk);
  disk->properties = *p;
  disk->calls = calls;
  disk->context = context;
  the_disk = *made = disk;
  say("create %s serial %s owner %s blocks %llu read-only %u flush %u fua %u unmap %u ranges %u", p->name, p->serial,
      p->owner, (unsigned long long)p->blocks, p->flags.read_only, p->flags.flush, p->flags.fua, p->flags.unmap, p->max_unmap);
  return 0;
}

EXPORT DWORD WnbdStartDispatcher(Disk *disk, DWORD count) {
  if (count < 1 || count > 255) return ERROR_INVALID_PARAMETER;
  if (count > 64) say("fault: %lu dispatchers, more than can be waited for", count), count = 64;
  disk->started = 1;
  disk->running = (LONG)count;
  for (; disk->count < count; disk->count++) disk->threads[disk->count] = CreateThread(NULL, 0, dispatcher, disk, 0, NULL);
  disk->script = CreateThread(NULL, 0, script, disk, 0, NULL);
  say("start");
  return 0;
}

EXPORT DWORD WnbdWaitDispatcher(Disk *disk) {
  if (!disk->started) return ERROR_PIPE_NOT_CONNECTED;
  DWORD result = WaitForMultipleObjects(disk->count, disk->threads, TRUE, INFINITE);
  return result == WAIT_FAILED ? GetLastError() : 0;
}

EXPORT DWORD WnbdSendResponse(Disk *disk, const Response *response, void *data, uint32_t size) {
  if (!disk->started || disk->stopped) {
    say("late %llu", (unsigned long long)response->handle);
    return ERROR_PIPE_NOT_CONNECTED;
  }
  if (!is_zero(response->reserved, 32)) say("fault: an answer's reserved bytes are not zero");
  EnterCriticalSection(&lock);
  Request *request = take(&disk->submitted, response->handle);
  if (request) {
    if (request->type != response->type) say("fault: a %s is answered as a %s", kind(request->type), kind(response->type));
    if (request->type == READ_REQ && !response->status.scsi) {
      if (size != request->size || !data) say("fault: %u bytes for a read of %u", size, request->size);
      else memcpy(request->data, data, size);
    }
    request->status = response->status;
    request->is_done = 1;
    WakeAllConditionVariable(&changed);
  } else say("unknown %llu", (unsigned long long)response->handle);
  LeaveCriticalSection(&lock);
  return request ? 0 : ERROR_NOT_FOUND;
}

EXPORT DWORD WnbdRemoveEx(const char *name, const RemoveOptions *options) {
  RemoveOptions usual = {.fallback = 1, .timeout = 30000, .retry = 2000};
  Disk *disk = the_disk;
  if (!options) options = &usual;
  say("remove hard %u fallback %u", options->hard, options->fallback);
  if (!disk || strcmp(disk->properties.name, name) || disk->disconnecting) return ERROR_FILE_NOT_FOUND;
  if (!options->hard && disk->refuses) {
    say("refused");
    if (!options->fallback) return ERROR_TIMEOUT;
  } else if (!options->hard && disk->properties.flags.flush) {
    /* Windows writes what it has not written yet. */
    Request request = make(WRITE_REQ, disk->properties.blocks - 1, 1);
    memset(request.data, 0x77, 512);
    run(disk, request, "last write");
    run(disk, make(FLUSH_REQ, 0, 0), "last flush");
  }
  disconnect(disk);
  return 0;
}

EXPORT DWORD WnbdRemove(Disk *disk, const RemoveOptions *options) { return WnbdRemoveEx(disk->properties.name, options); }

EXPORT void WnbdClose(Disk *disk) {
  if (!disk) return;
  if (disk->running) say("fault: closed while %ld dispatchers run", disk->running);
  if (!disk->disconnecting) say("fault: closed and not removed");
  if (the_disk == disk) the_disk = NULL;
  disconnect(disk);
  if (disk->script) WaitForSingleObject(disk->script, 5000);
  say("close");
  memset(disk, 0xdb, sizeof *disk); /* not freed: whoever uses it still sees this */
}

EXPORT DWORD WnbdPollDiskNumber(const char *name, BOOLEAN mapped, BOOLEAN open, DWORD timeout, DWORD retry, DWORD *number) {
  (void)mapped, (void)open, (void)timeout, (void)retry;
  Disk *disk = the_disk;
  if (!disk || strcmp(disk->properties.name, name)) return ERROR_FILE_NOT_FOUND;
  /* Windows looks for partitions before it shows a disk. */
  run(disk, make(READ_REQ, 0, 1), "first read");
  *number = DISK_NUMBER;
  say("shown as %d", DISK_NUMBER);
  EnterCriticalSection(&lock);
  disk->shown = 1;
  WakeAllConditionVariable(&changed);
  LeaveCriticalSection(&lock);
  return 0;
}

EXPORT DWORD WnbdGetUserContext(Disk *disk, void **context) {
  if (!disk) return ERROR_INVALID_PARAMETER;
  *context = disk->context;
  return 0;
}
