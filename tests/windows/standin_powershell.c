/* A stand-in for powershell.exe, which Wine has not: it runs no script. It notes in the file STANDIN_LOG which of our two
 * scripts it was given and with which variables, connects to the target as an initiator would, and answers as STANDIN_ANSWER
 * says: "disk", "service" (there is none), "nodisk", or a complaint. */
#include <winsock2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

static int reach(void) {
  WSADATA data;
  struct sockaddr_in place = {0};
  if (WSAStartup(MAKEWORD(2, 2), &data)) return 0;
  place.sin_family = AF_INET;
  place.sin_port = htons((unsigned short)atoi(variable("SWARMDISK_PORT")));
  place.sin_addr.s_addr = inet_addr(variable("SWARMDISK_HOST"));
  SOCKET to = socket(AF_INET, SOCK_STREAM, 0);
  int reached = connect(to, (struct sockaddr *)&place, sizeof place) == 0;
  closesocket(to);
  return reached;
}

int main(int argc, char **argv) {
  const char *answer = variable("STANDIN_ANSWER"), *script = argv[argc - 1];
  if (argc < 3 || strcmp(argv[argc - 2], "-Command")) return 99;
  int detaches = strstr(script, "Disconnect-IscsiTarget") && strstr(script, "Remove-IscsiTargetPortal");
  int attaches = strstr(script, "New-IscsiTargetPortal") && strstr(script, " Connect-IscsiTarget");
  FILE *log = fopen(variable("STANDIN_LOG"), "a");
  if (!log) return 98;
  /* No secret on the command line. */
  const char *secret = variable("SWARMDISK_CHAP_SECRET");
  int is_shown = *secret && strstr(GetCommandLineA(), secret) != NULL;
  fprintf(log, "%s %s %s [%s] [%s] %s\n", attaches ? "attach" : detaches ? "detach" : "?", variable("SWARMDISK_HOST"),
          variable("SWARMDISK_IQN"), variable("SWARMDISK_CHAP_NAME"), secret,
          is_shown ? "shown" : reach() ? "reached" : "unreachable");
  fclose(log);
  if (detaches) return 0;
  if (!strcmp(answer, "disk")) return puts("7") < 0;
  if (!strcmp(answer, "service")) return 3;
  if (!strcmp(answer, "nodisk")) return 4;
  fprintf(stderr, "\r\n%s\r\nat line 1\r\n", answer);
  return 1;
}
