# What every command on Windows runs: a list of cmdlets as data, read from standard input as JSON.
# `components.kinds.hyperv.powershell` leaves these lines out and encodes the rest: cmd.exe takes 8191
# characters. Nothing that is read here is ever code: a cmdlet is looked up in the list below, all the
# rest is values of its parameters. Windows PowerShell 5.1: no -AsHashtable, and $input is what a
# redirected standard input arrives in; the host reads it for us, so [Console]::In would get half.
$ErrorActionPreference='Stop'
$ConfirmPreference='None'
# Both would be written to standard output, among the JSON.
$ProgressPreference='SilentlyContinue'
$WarningPreference='SilentlyContinue'
# With it, ConvertTo-Json writes some arrays as {"value":[...],"Count":1}.
Remove-TypeData System.Array -ErrorAction Ignore
$allowed=@(
'Add-VMDvdDrive'
'Add-VMHardDiskDrive'
'Add-VMNetworkAdapter'
'Connect-VMNetworkAdapter'
'Disconnect-VMNetworkAdapter'
'Get-Acl'
'Get-ChildItem'
'Get-CimInstance'
'Get-FileHash'
'Get-Item'
'Get-NetAdapter'
'Get-NetIPAddress'
'Get-NetNat'
'Get-Service'
'Get-VHD'
'Get-VM'
'Get-VMBios'
'Get-VMComPort'
'Get-VMDvdDrive'
'Get-VMFirmware'
'Get-VMHardDiskDrive'
'Get-VMHost'
'Get-VMNetworkAdapter'
'Get-VMProcessor'
'Get-VMSwitch'
'Move-Item'
'New-Item'
'New-NetIPAddress'
'New-NetNat'
'New-VHD'
'New-VM'
'New-VMSwitch'
'Remove-Item'
'Remove-NetIPAddress'
'Remove-NetNat'
'Remove-VM'
'Remove-VMDvdDrive'
'Remove-VMHardDiskDrive'
'Remove-VMNetworkAdapter'
'Remove-VMSavedState'
'Remove-VMSwitch'
'Rename-VM'
'Rename-VMSwitch'
'Resize-VHD'
'Resume-VM'
'Set-Acl'
'Set-VM'
'Set-VMBios'
'Set-VMComPort'
'Set-VMDvdDrive'
'Set-VMFirmware'
'Set-VMMemory'
'Set-VMProcessor'
'Set-VMSwitch'
'Start-VM'
'Stop-VM'
)
# Numbers and truth as they are; enumerations, GUIDs and all else as their text.
function Plain($v){
    if($null -eq $v){return $null}
    if($v.GetType().IsPrimitive){return $v}
    "$v"
}
$did=@()
$results=New-Object Collections.ArrayList
$failed=$null
$i=-1
try{
    $asked=@($input) -join "`n"|ConvertFrom-Json
    foreach($c in $asked.calls){
        $i++
        $name=$c.cmdlet
        if($allowed -notcontains $name){throw "$name is not one of ours"}
        $h=@{ErrorAction='Stop'}
        foreach($p in $c.parameters.PSObject.Properties){$h[$p.Name]=$p.Value}
        # What earlier cmdlets gave back, by their numbers. One object stays one: not every parameter
        # takes a list.
        foreach($p in $c.take.PSObject.Properties){
            $o=@(foreach($n in $p.Value){$did[$n]})
            if($o.Count -eq 1){$o=$o[0]}
            $h[$p.Name]=$o
        }
        $out=@()
        try{$out=@(& $name @h)}catch{if(!$c.may_fail -or "$($_.FullyQualifiedErrorId)" -notlike $c.may_fail){throw}}
        $did+=,$out
        $rows=@(foreach($o in $out){
            $row=@{}
            foreach($s in $c.select){
                $v=$o
                foreach($k in $s.Split('.')){$v=$v.$k}
                if($v -is [Collections.IList]){$row[$s]=@(foreach($x in $v){Plain $x})}
                else{$row[$s]=Plain $v}
            }
            $row
        })
        [void]$results.Add($rows)
    }
}catch{
    $failed=[ordered]@{call=$i;message="$($_.Exception.Message)";id="$($_.FullyQualifiedErrorId)"}
}
$json=[ordered]@{results=$results;error=$failed}|ConvertTo-Json -Compress -Depth 9
$b=[Text.Encoding]::UTF8.GetBytes($json)
$o=[Console]::OpenStandardOutput()
$o.Write($b,0,$b.Length)
$o.Flush()
if($failed){exit 1}
