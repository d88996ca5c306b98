/* Wine 8 has no bcryptprimitives.dll, from which Rust's standard library takes its random bytes; a program then ends with
   53 and says nothing. This one hands out those of RtlGenRandom. tests/windows/wine.sh builds it. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG); /* RtlGenRandom */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T count) {
  while (count > 0) {
    ULONG some = count > 0x10000000 ? 0x10000000 : (ULONG)count;
    if (!SystemFunction036(bytes, some)) return FALSE;
    bytes += some;
    count -= some;
  }
  return TRUE;
}
