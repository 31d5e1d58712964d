"""Windows Server with Hyper-V: Autounattend.xml on a CD of its own, found on whatever CD has one.

The installer is changed only so far that UEFI boots it without asking for a key: the boot image
that does not ask is already on the medium. What has to be done in the installed system is a script
that holds no data; it reads keys and addresses from the same CD.

The format has no hashed passwords. What it calls not plain text is base64 of the password and a
word: it keeps a password from being read over a shoulder, no more.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from components.media.remaster import Edits, Remaster, other

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.media.answers import Answers
    from components.media.iso import Iso

LABEL = "nestlab"
OPTIONS = ("image", "locale", "product_key", "windows_timezone")
IMAGE = "2"
"""Which image is installed, by index or by name. On Microsoft's ISOs of Windows Server the second is
Standard with its desktop; the first, without, is what a lab short of memory takes."""
NO_PROMPT = "/efi/microsoft/boot/efisys_noprompt.bin"
BIOS_PROMPT = "/boot/bootfix.bin"
MARKS = ("/sources/boot.wim", "/efi/microsoft/boot/efisys.bin", NO_PROMPT)
COMPUTER_NAME = 15
"""Letters: NetBIOS has room for no more."""
PASSWORD = (8, 3)
"""Windows Server's own policy: letters, and kinds of letters of four."""
LAYOUTS = {
    "us": "0409:00000409", "gb": "0809:00000809", "es": "0c0a:0000040a", "fr": "040c:0000040c",
    "de": "0407:00000407", "it": "0410:00000410", "pt": "0816:00000816", "br": "0416:00000416",
    "be": "080c:0000080c", "ch": "0807:00000807", "dk": "0406:00000406", "fi": "040b:0000040b",
    "nl": "0413:00020409", "no": "0414:00000414", "pl": "0415:00000415", "se": "041d:0000041d",
}  # fmt: skip
"""Input locales, by the kernel's name of the layout."""
ZONES = {
    "UTC": "UTC", "Etc/UTC": "UTC", "Europe/London": "GMT Standard Time",
    "Europe/Lisbon": "GMT Standard Time", "Europe/Dublin": "GMT Standard Time",
    "Europe/Madrid": "Romance Standard Time", "Europe/Paris": "Romance Standard Time",
    "Europe/Brussels": "Romance Standard Time", "Europe/Berlin": "W. Europe Standard Time",
    "Europe/Rome": "W. Europe Standard Time", "Europe/Amsterdam": "W. Europe Standard Time",
    "Europe/Vienna": "W. Europe Standard Time", "Europe/Zurich": "W. Europe Standard Time",
    "Europe/Warsaw": "Central European Standard Time", "America/New_York": "Eastern Standard Time",
    "America/Chicago": "Central Standard Time", "America/Los_Angeles": "Pacific Standard Time",
}  # fmt: skip
"""Windows' names of zones, from Unicode CLDR."""

_UNATTEND = "urn:schemas-microsoft-com:unattend"
_WCM = "http://schemas.microsoft.com/WMIConfig/2002/State"
_COMPONENT = {
    "processorArchitecture": "amd64",
    "publicKeyToken": "31bf3856ad364e35",
    "language": "neutral",
    "versionScope": "nonSxS",
}
FIRST_LOGON = (
    "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -Command "
    f"\"& ('{{0}}:\\setup.ps1' -f (Get-Volume -FileSystemLabel {LABEL}).DriveLetter)\""
)

SETUP = r"""# Made by nestlab. Run once by Administrator, at the first logon: network, SSH, Hyper-V.
$ErrorActionPreference = 'Stop'
Start-Transcript -Path "$env:SystemDrive\nestlab-setup.log" -Append | Out-Null
$cd = $PSScriptRoot
$told = Get-Content -Raw -Encoding UTF8 (Join-Path $cd 'machine.json') | ConvertFrom-Json

# The password of the one automatic logon must not stay in the registry.
$logon = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon'
Set-ItemProperty -Path $logon -Name AutoAdminLogon -Value '0'
foreach ($value in 'DefaultPassword', 'AutoLogonCount') {
    Remove-ItemProperty -Path $logon -Name $value -ErrorAction SilentlyContinue
}

$adapter = Get-NetAdapter -Physical | Where-Object { $_.MacAddress -eq $told.mac }
if ($told.address) {
    $adapter | Set-NetIPInterface -AddressFamily IPv4 -Dhcp Disabled
    $adapter | Get-NetIPAddress -AddressFamily IPv4 -ErrorAction SilentlyContinue |
        Remove-NetIPAddress -Confirm:$false
    $adapter | Get-NetRoute -DestinationPrefix '0.0.0.0/0' -ErrorAction SilentlyContinue |
        Remove-NetRoute -Confirm:$false
    $adapter | New-NetIPAddress -AddressFamily IPv4 -IPAddress $told.address `
        -PrefixLength $told.prefix -DefaultGateway $told.gateway | Out-Null
    $adapter | Set-DnsClientServerAddress -ServerAddresses $told.dns
}
Get-NetConnectionProfile | Set-NetConnectionProfile -NetworkCategory Private `
    -ErrorAction SilentlyContinue

# From Windows itself, from an OpenSSH-Win64*.msi or a Languages and Optional Features CD of the
# user's, else from Windows Update.
if (-not (Get-Service -Name sshd -ErrorAction SilentlyContinue)) {
    $drives = Get-Volume | Where-Object { $_.DriveLetter -and $_.DriveType -eq 'CD-ROM' } |
        ForEach-Object { "$($_.DriveLetter):\" }
    $package = Get-ChildItem -Path $drives -Filter 'OpenSSH-Win64*.msi' | Select-Object -First 1
    $features = $drives | ForEach-Object { Join-Path $_ 'LanguagesAndOptionalFeatures' } |
        Where-Object { Test-Path $_ } | Select-Object -First 1
    if ($package) {
        $ended = Start-Process msiexec.exe -Wait -PassThru `
            -ArgumentList '/i', "`"$($package.FullName)`"", '/qn', '/norestart'
        if ($ended.ExitCode -notin 0, 3010) { throw "OpenSSH: msiexec ended with $($ended.ExitCode)" }
    } elseif ($features) {
        Add-WindowsCapability -Online -Name 'OpenSSH.Server~~~~0.0.1.0' -Source $features -LimitAccess | Out-Null
    } else {
        Add-WindowsCapability -Online -Name 'OpenSSH.Server~~~~0.0.1.0' | Out-Null
    }
}
$ssh = Join-Path $env:ProgramData 'ssh'
New-Item -ItemType Directory -Force -Path $ssh | Out-Null
foreach ($pair in @(
        @('ssh_host_ed25519_key', 'ssh_host_ed25519_key'),
        @('ssh_host_ed25519_key.pub', 'ssh_host_ed25519_key.pub'),
        @('authorized_keys', 'administrators_authorized_keys'))) {
    $file = Join-Path $ssh $pair[1]
    Copy-Item -Force -Path (Join-Path $cd $pair[0]) -Destination $file
    Set-ItemProperty -Path $file -Name IsReadOnly -Value $false
    # sshd refuses files that others may write. By number: groups are called otherwise elsewhere.
    icacls.exe $file /inheritance:r /grant '*S-1-5-18:F' '*S-1-5-32-544:F' | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "icacls ended with $LASTEXITCODE" }
}
Set-Service -Name sshd -StartupType Automatic
Restart-Service -Name sshd
if (-not (Get-NetFirewallRule -Name nestlab-sshd -ErrorAction SilentlyContinue)) {
    New-NetFirewallRule -Name nestlab-sshd -DisplayName 'SSH (nestlab)' -Direction Inbound `
        -Protocol TCP -LocalPort 22 -Action Allow -Profile Any | Out-Null
}

Install-WindowsFeature -Name Hyper-V -IncludeManagementTools | Out-Null
Stop-Transcript | Out-Null
Restart-Computer -Force
"""


def files(answers: Answers) -> dict[str, bytes]:
    """Return what is on the answers' CD.

    Options: ``image``, the index or the name of what is installed; ``locale`` like es-ES;
    ``product_key``, without which it is an evaluation; ``windows_timezone``, by Windows' name.
    """
    machine = {
        "mac": answers.mac.replace(":", "-").upper(),
        "address": answers.address,
        "prefix": answers.prefix,
        "gateway": answers.gateway,
        "dns": answers.dns or None,
    }
    return {
        "/Autounattend.xml": _unattend(answers),
        "/setup.ps1": SETUP.replace("\n", "\r\n").encode("ascii"),
        "/machine.json": json.dumps(machine).encode(),
        "/authorized_keys": f"{answers.authorized_key}\n".encode(),
        "/ssh_host_ed25519_key": answers.host_private.encode(),
        "/ssh_host_ed25519_key.pub": f"{answers.host_public}\n".encode(),
    }


def encoded(password: str, of: str) -> str:
    """Return a password as the format hides it; ``of`` is the element that holds it."""
    return base64.b64encode(f"{password}{of}".encode("utf-16-le")).decode()


def _unattend(answers: Answers) -> bytes:
    answers.only(OPTIONS)
    _refuse(answers)
    locale = answers.option("locale", "en-US")
    if not re.fullmatch(r"[a-z]{2}-[A-Z]{2}", locale):
        raise ValueError(f"locale: {locale!r} is not like en-US")
    layout = LAYOUTS.get(answers.keyboard)
    if layout is None:
        raise ValueError(f"keyboard: {answers.keyboard!r} is none of {', '.join(LAYOUTS)}")
    zone = answers.option("windows_timezone", ZONES.get(answers.timezone, ""))
    if not zone:
        raise ValueError(
            f"timezone: no name of Windows' is known for {answers.timezone!r}; "
            "give it as windows_timezone"
        )
    languages = {"InputLocale": layout, "SystemLocale": locale, "UserLocale": locale}
    shell = "Microsoft-Windows-Shell-Setup"
    tree: dict[str, dict[str, object]] = {
        "windowsPE": {
            # What is on the medium decides which language its set-up speaks.
            "Microsoft-Windows-International-Core-WinPE": {
                "SetupUILanguage": {"UILanguage": locale},
                **languages,
                "UILanguage": locale,
            },
            "Microsoft-Windows-Setup": _setup(answers),
        },
        "specialize": {shell: {"ComputerName": answers.name, "TimeZone": zone}},
        "oobeSystem": {
            "Microsoft-Windows-International-Core": {**languages, "UILanguage": locale},
            shell: {
                "OOBE": {
                    "HideEULAPage": "true",
                    "HideLocalAccountScreen": "true",
                    "HideOEMRegistrationScreen": "true",
                    "HideOnlineAccountScreens": "true",
                    "HideWirelessSetupInOOBE": "true",
                    "ProtectYourPC": "3",
                },
                "UserAccounts": {
                    "AdministratorPassword": _secret(answers, "AdministratorPassword"),
                },
                "AutoLogon": {
                    "Password": _secret(answers, "Password"),
                    "Enabled": "true",
                    "LogonCount": "1",
                    "Username": "Administrator",
                },
                "FirstLogonCommands": {
                    "SynchronousCommand": [
                        {"Order": "1", "CommandLine": FIRST_LOGON, "Description": "nestlab"}
                    ]
                },
            },
        },
    }
    return _written(tree)


def _written(tree: Mapping[str, Mapping[str, object]]) -> bytes:
    """Return an answer file: its passes, and what each component is told in them."""
    ET.register_namespace("", _UNATTEND)
    ET.register_namespace("wcm", _WCM)
    root = ET.Element(f"{{{_UNATTEND}}}unattend")
    for name, components in tree.items():
        part = ET.SubElement(root, f"{{{_UNATTEND}}}settings", {"pass": name})
        for component, content in components.items():
            attributes = {"name": component, **_COMPONENT}
            _fill(ET.SubElement(part, f"{{{_UNATTEND}}}component", attributes), content)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _secret(answers: Answers, element: str) -> dict[str, str]:
    return {"Value": encoded(answers.password, element), "PlainText": "false"}


def _setup(answers: Answers) -> dict[str, object]:
    image = answers.option("image", IMAGE)
    key = answers.option("product_key", "")
    if key and not re.fullmatch(r"[0-9A-Z]{5}(-[0-9A-Z]{5}){4}", key):
        raise ValueError("product_key: it is five groups of five letters and digits")
    user: dict[str, object] = {"AcceptEula": "true"}
    if key:
        user["ProductKey"] = {"Key": key, "WillShowUI": "OnError"}
    return {
        "DiskConfiguration": {
            "Disk": [
                {
                    "CreatePartitions": {
                        "CreatePartition": [
                            {"Order": "1", "Type": "EFI", "Size": "260"},
                            {"Order": "2", "Type": "MSR", "Size": "16"},
                            {"Order": "3", "Type": "Primary", "Extend": "true"},
                        ]
                    },
                    "ModifyPartitions": {
                        "ModifyPartition": [
                            {"Order": "1", "PartitionID": "1", "Format": "FAT32", "Label": "System"},
                            {"Order": "2", "PartitionID": "3", "Format": "NTFS", "Label": "Windows",
                             "Letter": "C"},
                        ]
                    },
                    "DiskID": "0",
                    "WillWipeDisk": "true",
                }
            ]
        },
        "ImageInstall": {
            "OSImage": {
                "InstallFrom": {
                    "MetaData": [
                        {
                            "Key": "/IMAGE/INDEX" if image.isdecimal() else "/IMAGE/NAME",
                            "Value": image,
                        }
                    ]
                },
                "InstallTo": {"DiskID": "0", "PartitionID": "3"},
            }
        },
        "UserData": user,
    }  # fmt: skip


def _fill(element: ET.Element, content: object) -> None:
    """Put text, elements by name, or lists of elements that are added, into an element."""
    if not isinstance(content, dict):
        element.text = str(content)
        return
    for name, inner in content.items():
        for one in inner if isinstance(inner, list) else [inner]:
            new = ET.SubElement(element, f"{{{_UNATTEND}}}{name}")
            if isinstance(inner, list):
                new.set(f"{{{_WCM}}}action", "add")
            _fill(new, one)


def _refuse(answers: Answers) -> None:
    """Refuse what Windows would stop at, half-way, with nobody to see it."""
    if len(answers.name) > COMPUTER_NAME:
        raise ValueError(
            f"name: Windows calls no computer by more than {COMPUTER_NAME} letters, "
            f"{answers.name!r} has {len(answers.name)}"
        )
    password = answers.password
    letters = re.sub(r"[A-Za-z0-9]", "", password)
    kinds = [re.search(form, password) for form in ("[a-z]", "[A-Z]", "[0-9]")] + [letters]
    if len(password) < PASSWORD[0] or sum(map(bool, kinds)) < PASSWORD[1]:
        raise ValueError(
            f"password: Windows Server wants {PASSWORD[0]} letters or more, of {PASSWORD[1]} of "
            "these kinds: small, capital, digits, others"
        )
    if "administrator" in password.lower():
        raise ValueError("password: Windows Server takes none with the user's name in it")


def check(iso: Iso) -> None:
    """Refuse what is no installer of Windows for UEFI."""
    missing = [name for name in MARKS if not iso.find(name)]
    if missing:
        remedy = "give a Windows Server ISO of Microsoft's, 2019 or newer, whole"
        wanted = f"the installer of Windows Server is wanted, which has {missing[0]}"
        raise other(iso, wanted, remedy)


def edits(iso: Iso) -> Edits:
    """Let UEFI boot the image that does not ask for a key, and BIOS not ask either."""
    prompt = iso.find(BIOS_PROMPT)
    return Edits(removes=(prompt,) if prompt else (), uefi_image=iso.find(NO_PROMPT))


REMASTER = Remaster(version=1, check=check, edits=edits)
