# Deep Feature Interpolation in Windows: install, update or remove, for the user who runs it.
#
#   powershell -ExecutionPolicy Bypass -File install.ps1                      install, or bring up to date
#   powershell -ExecutionPolicy Bypass -File install.ps1 -Uninstall           remove; stores of attribute vectors stay
#   powershell -ExecutionPolicy Bypass -File install.ps1 -Uninstall -Purge    remove those as well
#
# Needs Python 3.11 or newer (https://www.python.org/downloads). The program goes into a virtual environment in DFI_HOME,
# or where that is not set in %LOCALAPPDATA%\dfi; the filter into every GIMP 3, which is done by `dfi gimp install`.
# Written without a Windows to try it on: see docs/install.md.
param([switch]$Uninstall, [switch]$Purge)
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version 3

$here = $PSScriptRoot
$stateFolder = if ($env:DFI_HOME) { $env:DFI_HOME } else { Join-Path $env:LOCALAPPDATA 'dfi' }
$env:DFI_HOME = $stateFolder
$venv = Join-Path $stateFolder 'venv'
$python = Join-Path $venv 'Scripts\python.exe'
$dfi = Join-Path $venv 'Scripts\dfi.exe'

function Stop-Here([string]$sentence) {
    Write-Host "install.ps1: $sentence" -ForegroundColor Red
    exit 1
}

# A program's failure is no exception to PowerShell.
function Invoke-Checked([string]$sentence, [string]$program, [string[]]$arguments) {
    & $program @arguments
    if ($LASTEXITCODE -ne 0) { Stop-Here $sentence }
}

# The programs of this installation that run, by what their command line has. That of other users' is not shown.
function Get-Running([string]$pattern) {
    $place = [regex]::Escape("$venv\")
    Get-CimInstance Win32_Process | Where-Object { $_.CommandLine -match $place -and $_.CommandLine -match $pattern }
}

# Windows lets nobody replace or remove the files of a program that runs. A server and its workers can be started again.
function Stop-Servers {
    foreach ($process in @(Get-Running ' serve\b| dfi_server\.')) {
        Write-Host "Stopping a server's process ($($process.ProcessId))"
        Stop-Process -Force -Id $process.ProcessId -ErrorAction SilentlyContinue
        Wait-Process -Timeout 10 -Id $process.ProcessId -ErrorAction SilentlyContinue
    }
    if (Get-Running '') { Stop-Here "A program of $venv still runs: let it end, or end it, then run this again." }
}

if ($Purge -and -not $Uninstall) { Stop-Here '-Purge goes with -Uninstall.' }

Stop-Servers

if ($Uninstall) {
    if (Test-Path $dfi) {
        & $dfi service uninstall
        & $dfi gimp uninstall
    }
    $parts = @('venv', 'tmp', 'own-keys', 'server.log', 'galleries', 'installed')
    if ($Purge) { $parts += @('stores', 'own', 'downloads') }
    foreach ($part in $parts) {
        $path = Join-Path $stateFolder $part
        if (Test-Path $path) {
            Remove-Item -Recurse -Force $path
            Write-Host "Removed $path"
        }
    }
    if ((Test-Path $stateFolder) -and -not (Get-ChildItem -Force $stateFolder)) { Remove-Item $stateFolder }
    exit 0
}

if (-not (Test-Path $python)) {
    $found = $null
    foreach ($candidate in @(@('py', '-3'), @('python'), @('python3'))) {
        if (-not (Get-Command $candidate[0] -ErrorAction SilentlyContinue)) { continue }
        $options = @($candidate | Select-Object -Skip 1) + @('-c', 'import sys; sys.exit(sys.version_info < (3, 11))')
        & $candidate[0] @options
        if ($LASTEXITCODE -eq 0) { $found = $candidate; break }
    }
    if (-not $found) {
        Stop-Here 'Python 3.11 or newer is missing: get it from https://www.python.org/downloads, then run this again.'
    }
    New-Item -ItemType Directory -Force $stateFolder | Out-Null
    $options = @($found | Select-Object -Skip 1) + @('-m', 'venv', $venv)
    Invoke-Checked 'The virtual environment could not be made.' $found[0] $options
}

# From a copy: building leaves files in the source folder.
$source = Join-Path $stateFolder 'tmp'
if (Test-Path $source) { Remove-Item -Recurse -Force $source }
New-Item -ItemType Directory $source | Out-Null
foreach ($part in @('pyproject.toml', 'README.md', 'LICENSE', 'dfi_server')) {
    Copy-Item -Recurse (Join-Path $here $part) $source
}
New-Item -ItemType Directory (Join-Path $source 'gimp_plugin') | Out-Null
Copy-Item -Recurse (Join-Path $here 'gimp_plugin\dfi') (Join-Path $source 'gimp_plugin')
$pip = @('-m', 'pip', 'install', '--disable-pip-version-check', '-c', (Join-Path $here 'constraints.txt'))
$network = 'Check the connection to https://pypi.org, then run this again.'
Invoke-Checked $network $python ($pip + @('setuptools'))
Invoke-Checked $network $python ($pip + @('--no-build-isolation', "${source}[heif]"))
Remove-Item -Recurse -Force $source

& $dfi gimp install
$filter = $LASTEXITCODE
Write-Host "The command is $dfi"
exit $filter
