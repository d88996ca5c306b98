//! swarmdisk as a service of Windows: registered, started, stopped, and run under the service control manager.
//!
//! *Invariants*: a service that runs is stopped through what it does, so that its disks are detached; its messages are in the
//! event log, under Application, source `swarmdisk`. *Bounds*: [`START_TIME`], [`STOP_TIME`]. Crate: `windows-service`.

mod event_log;

use crate::sys;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use swarmdisk_host::cli::Failure;
use swarmdisk_host::log;
use swarmdisk_host::service::{Duty, ServiceManager, Work};
use tokio::sync::oneshot;
use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept,
    ServiceErrorControl, ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo,
    ServiceStartType, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle};
use windows_service::service_manager::{ServiceManager as Manager, ServiceManagerAccess};
use windows_service::{define_windows_service, service_dispatcher};
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_FAILED_SERVICE_CONTROLLER_CONNECT, ERROR_SERVICE_ALREADY_RUNNING,
    ERROR_SERVICE_DOES_NOT_EXIST, ERROR_SERVICE_EXISTS, ERROR_SERVICE_MARKED_FOR_DELETE, ERROR_SERVICE_NOT_ACTIVE,
};

/// Its name, also in the event log.
const NAME: &str = "swarmdisk";
const DISPLAY_NAME: &str = "swarmdisk";
const DESCRIPTION: &str = "Serves disk images to a swarm, and attaches disks from it, as its configuration lists them.";
/// How long it may take to begin.
const START_TIME: Duration = Duration::from_secs(30);
/// How long it may take to end: drives are detached, overlays flushed.
const STOP_TIME: Duration = Duration::from_secs(90);
const STEP: Duration = Duration::from_millis(100);

/// The command's `service`.
#[derive(Debug)]
pub struct WindowsServices;

impl ServiceManager for WindowsServices {
    fn install(&self, config: &Path) -> Result<(), Failure> {
        let manager = manager(ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE)?;
        let info = ServiceInfo {
            name: NAME.into(),
            display_name: DISPLAY_NAME.into(),
            service_type: ServiceType::OWN_PROCESS,
            start_type: ServiceStartType::AutoStart,
            error_control: ServiceErrorControl::Normal,
            executable_path: std::env::current_exe()?,
            launch_arguments: ["service".into(), "run".into(), "--config".into(), OsString::from(config)].into(),
            dependencies: Vec::new(),
            account_name: None,
            account_password: None,
        };
        let access = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START | ServiceAccess::DELETE;
        let service = manager.create_service(&info, access).map_err(|error| told("make the service", &error))?;
        // What it is without: it runs all the same.
        let kept = service
            .set_description(DESCRIPTION)
            .and_then(|()| service.set_preshutdown_timeout(STOP_TIME))
            .and_then(|()| service.update_failure_actions(restarts()));
        if let Err(error) = kept.map_err(source) {
            log::warn(format_args!("the service may not be restarted should it fail: {error}"));
        }
        if let Err(error) = sys::register_event_source(NAME) {
            log::warn(format_args!("the event log will not explain the service's messages: {error}"));
        }
        Ok(())
    }

    fn start(&self) -> Result<(), Failure> {
        let service = open(ServiceAccess::START | ServiceAccess::QUERY_STATUS)?;
        service.start::<OsString>(&[]).map_err(|error| told("start the service", &error))?;
        let status = wait(&service, START_TIME, |state| state != ServiceState::StartPending)?;
        match (status.current_state, status.exit_code) {
            (ServiceState::Running, _) => Ok(()),
            (ServiceState::StartPending, _) => {
                Err(Failure::new("the service has not begun yet; see `sc query swarmdisk`, and the event log"))
            }
            _ => Err(Failure::new(
                "the service ended at its start; the event log says why (Application, source swarmdisk), or run `swarmdisk service run --config FILE` here",
            )),
        }
    }

    fn stop(&self) -> Result<(), Failure> {
        let service = open(ServiceAccess::STOP | ServiceAccess::QUERY_STATUS)?;
        service.stop().map_err(|error| told("stop the service", &error))?;
        stopped(&service)
    }

    fn remove(&self) -> Result<(), Failure> {
        let service = open(ServiceAccess::STOP | ServiceAccess::QUERY_STATUS | ServiceAccess::DELETE)?;
        match service.stop() {
            Ok(_) => stopped(&service)?,
            Err(error) if code(&error) == Some(ERROR_SERVICE_NOT_ACTIVE) => {}
            Err(error) => return Err(told("stop the service", &error)),
        }
        service.delete().map_err(|error| told("remove the service", &error))?;
        // Somebody may have done so.
        let _ = sys::unregister_event_source(NAME);
        Ok(())
    }

    fn run(&self, work: Work) -> Result<Result<(), Failure>, Work> {
        *lock(&WORK) = Some(work);
        match service_dispatcher::start(NAME, service_main) {
            Ok(()) => Ok(lock(&OUTCOME).take().unwrap_or(Ok(()))),
            Err(error) => match (code(&error), lock(&WORK).take()) {
                (Some(ERROR_FAILED_SERVICE_CONTROLLER_CONNECT), Some(work)) => Err(work),
                _ => Ok(Err(told("run as a service", &error))),
            },
        }
    }
}

fn manager(access: ServiceManagerAccess) -> Result<Manager, Failure> {
    Manager::local_computer(None::<&str>, access).map_err(|error| told("reach the service control manager", &error))
}

fn open(access: ServiceAccess) -> Result<Service, Failure> {
    manager(ServiceManagerAccess::CONNECT)?.open_service(NAME, access).map_err(|error| told("open the service", &error))
}

/// It is restarted after ten seconds, then after a minute each time.
fn restarts() -> ServiceFailureActions {
    let restart =
        |seconds| ServiceAction { action_type: ServiceActionType::Restart, delay: Duration::from_secs(seconds) };
    ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(Duration::from_secs(24 * 60 * 60)),
        reboot_msg: None,
        command: None,
        actions: Some([restart(10), restart(60), restart(60)].into()),
    }
}

fn stopped(service: &Service) -> Result<(), Failure> {
    match wait(service, STOP_TIME, |state| state == ServiceState::Stopped)?.current_state {
        ServiceState::Stopped => Ok(()),
        _ => Err(Failure::new("the service has not ended yet; see `sc query swarmdisk`, and the event log")),
    }
}

/// Its status when it is as wished, or time is over.
fn wait(service: &Service, time: Duration, is_done: fn(ServiceState) -> bool) -> Result<ServiceStatus, Failure> {
    let until = Instant::now() + time;
    loop {
        let status = service.query_status().map_err(|error| told("ask for the service's state", &error))?;
        if is_done(status.current_state) || Instant::now() > until {
            return Ok(status);
        }
        thread::sleep(STEP);
    }
}

fn code(error: &windows_service::Error) -> Option<u32> {
    match error {
        windows_service::Error::Winapi(error) => error.raw_os_error().map(|code| code as u32),
        _ => None,
    }
}

/// What the system itself says of an error.
fn source(error: windows_service::Error) -> io::Error {
    match error {
        windows_service::Error::Winapi(error) => error,
        other => io::Error::other(other),
    }
}

fn told(action: &str, error: &windows_service::Error) -> Failure {
    let what = match code(error) {
        Some(ERROR_ACCESS_DENIED) => "Windows lets only Administrators; run it from an elevated prompt".to_owned(),
        Some(ERROR_SERVICE_DOES_NOT_EXIST) => {
            "there is none; `swarmdisk service install --config FILE` makes it".to_owned()
        }
        Some(ERROR_SERVICE_EXISTS) => "there is one; `swarmdisk service remove` takes it away".to_owned(),
        Some(ERROR_SERVICE_ALREADY_RUNNING) => "it runs already; `swarmdisk service stop` stops it".to_owned(),
        Some(ERROR_SERVICE_NOT_ACTIVE) => "it does not run; `swarmdisk service start` starts it".to_owned(),
        Some(ERROR_SERVICE_MARKED_FOR_DELETE) => {
            "it is being removed; close what shows services, then try again".to_owned()
        }
        _ => match error {
            windows_service::Error::Winapi(error) => error.to_string(),
            other => other.to_string(),
        },
    };
    Failure::new(format!("cannot {action}: {what}"))
}

/// What [`service_main`] is to do: Windows calls it with arguments of its own.
static WORK: Mutex<Option<Work>> = Mutex::new(None);
/// What came of it.
static OUTCOME: Mutex<Option<Result<(), Failure>>> = Mutex::new(None);
static STATUS: OnceLock<ServiceStatusHandle> = OnceLock::new();

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

define_windows_service!(service_main, serve);

/// The service, from its start to its end, on a thread of Windows'.
fn serve(_arguments: Vec<OsString>) {
    let Some(work) = lock(&WORK).take() else { return };
    event_log::begin();
    let (stop, stopped) = oneshot::channel();
    let stop = Mutex::new(Some(stop));
    let control = move |control| match control {
        ServiceControl::Stop | ServiceControl::Preshutdown => {
            tell(ServiceState::StopPending, ServiceExitCode::NO_ERROR);
            if let Some(stop) = lock(&stop).take() {
                // Where nobody waits any longer, it is ending.
                let _ = stop.send(());
            }
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    };
    match service_control_handler::register(NAME, control) {
        Ok(handle) => drop(STATUS.set(handle)),
        Err(error) => return log::warn(format_args!("{}", told("be a service", &error))),
    }
    tell(ServiceState::StartPending, ServiceExitCode::NO_ERROR);
    let begun = || {
        tell(ServiceState::Running, ServiceExitCode::NO_ERROR);
        log::info(format_args!("the service runs"));
    };
    let outcome = work(Duty { stop: stopped, begun: Box::new(begun) });
    let exit = match &outcome {
        Ok(()) => {
            log::info(format_args!("the service has stopped"));
            ServiceExitCode::NO_ERROR
        }
        Err(failure) => {
            event_log::error(&format!("the service ends: {failure}"));
            ServiceExitCode::ServiceSpecific(if failure.is_usage() { 2 } else { 1 })
        }
    };
    *lock(&OUTCOME) = Some(outcome);
    // When this is told, the process may end.
    tell(ServiceState::Stopped, exit);
}

/// Tells Windows how the service is.
fn tell(state: ServiceState, exit_code: ServiceExitCode) {
    let (wait_hint, controls_accepted) = match state {
        ServiceState::StartPending => (START_TIME, ServiceControlAccept::empty()),
        ServiceState::StopPending => (STOP_TIME, ServiceControlAccept::empty()),
        ServiceState::Running => (Duration::ZERO, ServiceControlAccept::STOP | ServiceControlAccept::PRESHUTDOWN),
        _ => (Duration::ZERO, ServiceControlAccept::empty()),
    };
    let status = ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted,
        exit_code,
        checkpoint: 0,
        wait_hint,
        process_id: None,
    };
    // Windows will see by itself that the process ends.
    let _ = STATUS.get().map(|handle| handle.set_service_status(status));
}
