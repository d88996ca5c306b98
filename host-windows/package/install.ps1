# Installs swarmdisk and its service, or takes both away. As Administrator, in the folder of the unpacked zip:
#
#   powershell -ExecutionPolicy Bypass -File install.ps1            installs it, or a newer version of it
#   powershell -ExecutionPolicy Bypass -File install.ps1 -Remove    takes it away; configuration and caches stay
#
# The program goes to %ProgramFiles%\swarmdisk, configuration and caches to %ProgramData%\swarmdisk, where only
# administrators and the system may read and write: the service runs as the system.
#Requires -Version 5.1
#Requires -RunAsAdministrator
[CmdletBinding()]
param([switch]$Remove)

Set-StrictMode -Version 3.0
$ErrorActionPreference = 'Stop'

$Program = Join-Path $env:ProgramFiles 'swarmdisk'
$Exe = Join-Path $Program 'swarmdisk.exe'
$Data = Join-Path $env:ProgramData 'swarmdisk'
$Config = Join-Path $Data 'swarmdisk.toml'
# The groups' names are other ones in other languages.
$Administrators = 'S-1-5-32-544'
$System = 'S-1-5-18'

function Invoke-Native([string]$Path, [string[]]$Arguments) {
    & $Path @Arguments
    if ($LASTEXITCODE -ne 0) { throw "$Path $Arguments has failed with status $LASTEXITCODE" }
}

function Remove-SwarmdiskService {
    if (Get-Service -Name swarmdisk -ErrorAction SilentlyContinue) { Invoke-Native $Exe @('service', 'remove') }
}

function New-DataFolder {
    if (Test-Path $Data) {
        $owner = (Get-Acl $Data).GetOwner([System.Security.Principal.SecurityIdentifier]).Value
        if ($owner -notin @($Administrators, $System)) {
            throw "$Data belongs to somebody who is no administrator; look at what is in it, remove it, then try again"
        }
    }
    else {
        New-Item -ItemType Directory -Path $Data | Out-Null
    }
    Invoke-Native icacls.exe @($Data, '/setowner', "*$Administrators", '/q')
    Invoke-Native icacls.exe @($Data, '/inheritance:r', '/grant:r', "*${Administrators}:(OI)(CI)F", "*${System}:(OI)(CI)F", '/q')
}

if ($Remove) {
    Remove-SwarmdiskService
    if (Test-Path $Program) { Remove-Item -Recurse -Force $Program }
    Write-Host "swarmdisk is removed; $Data stays"
    return
}

New-DataFolder
Remove-SwarmdiskService
New-Item -ItemType Directory -Force -Path $Program | Out-Null
Copy-Item -Force (Join-Path $PSScriptRoot 'swarmdisk.exe') $Exe
if (-not (Test-Path $Config)) { Copy-Item (Join-Path $PSScriptRoot 'swarmdisk.toml') $Config }

$isListed = Select-String -Quiet -Path $Config -Pattern '^\s*\[\['
if (-not $isListed) {
    Write-Host "Say in $Config what the service is to run, then, in this window:"
    Write-Host "  & '$Exe' service install --config '$Config'"
    Write-Host "  & '$Exe' service start"
    return
}
Invoke-Native $Exe @('service', 'install', '--config', $Config)
Invoke-Native $Exe @('service', 'start')
